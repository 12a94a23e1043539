"""YOLOv5's ways to call its scripts from Python: parse_opt, and validation of a model in memory."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from utils.base.names import class_names
from utils.base.options import Options, parse_known_options, parse_options
from utils.compat.callbacks import adapted
from utils.compat.checks import as_yaml, check_dataset
from utils.tasks.segment.rasterize import MaskFormat
from utils.tasks.task import get_task
from utils.val.accumulator import EvalResult

if TYPE_CHECKING:
    from utils.val.val_options import ValOptions


def _parse_opt(options: type[Options], known: bool) -> argparse.Namespace:
    """Parse the command line; with `known` unknown flags are left alone. All fields are in the Namespace."""
    parsed = parse_known_options(options)[0] if known else parse_options(options)
    return argparse.Namespace(**parsed.as_dict())


def detect_parse_opt(known: bool = False) -> argparse.Namespace:
    """Return the flags of detect.py, for `detect.run(**vars(opt))`."""
    from utils.predict.detect_options import DetectOptions

    return _parse_opt(DetectOptions, known)


def val_parse_opt(known: bool = False) -> argparse.Namespace:
    """Return the flags of val.py, for `val.run(**vars(opt))`."""
    from utils.val.val_options import ValOptions

    return _parse_opt(ValOptions, known)


def export_parse_opt(known: bool = False) -> argparse.Namespace:
    """Return the flags of export.py, for `export.run(**vars(opt))`."""
    from utils.export.export_options import ExportOptions

    return _parse_opt(ExportOptions, known)


def train_parse_opt(known: bool = False) -> argparse.Namespace:
    """Return the flags of train.py, for `train.run(**vars(opt))`."""
    from utils.train.train_options import TrainOptions

    return _parse_opt(TrainOptions, known)


def export_formats() -> Any:
    """Return a pandas table of the formats: name, argument of --include, suffix, and where they run."""
    import pandas as pd

    from utils.base.formats import FORMATS

    rows = [["PyTorch", "-", ".pt", True, True]]
    rows += [[name, name, file_format.ending(), True, True] for name, file_format in FORMATS.items()]
    return pd.DataFrame(rows, columns=["Format", "Argument", "Suffix", "CPU", "GPU"])


_IN_MEMORY = (
    *("model", "dataloader", "save_dir", "plots", "callbacks", "compute_loss"),
    *("criterion", "pbar"),  # of classification
)
_MASKS = ("overlap", "mask_downsample_ratio")  # of a loader; files are measured with --mask-size
_POSITIONAL = ("weights", "batch_size", "imgsz", "conf_thres", "iou_thres", "max_det")


def run_validation(cls: type[ValOptions], data: Any, values: Sequence[Any], keywords: dict[str, Any]) -> Any:
    """Validate with the arguments of `val.run`; return the `ValResult` of the task.

    Args:
        cls: options of the val script.
        data: data yaml, or its content.
        values: positional arguments behind it, `_POSITIONAL`.
        keywords: flags with underscores, or `model` and the keywords of `validate_model`.
    """
    from utils.val.measure import measure
    from utils.val.val_options import options_from
    from utils.val.validate import validate

    keywords = keywords | dict(zip(_POSITIONAL, values, strict=False))
    if isinstance(data, dict):
        with as_yaml(data) as file:
            return run_validation(cls, file, (), keywords)
    if keywords.get("model") is not None:
        model, loader = keywords.pop("model"), keywords.pop("dataloader", None)
        if cls.model_task == "classify":
            from utils.compat.classify import validate_classifier

            return validate_classifier(model, loader, data, **keywords)
        return validate_model(model, loader, data, task=cls.model_task, **keywords)
    masks = _MASKS if cls.model_task == "segment" else ()
    given = {key: value for key, value in keywords.items() if key not in (*_IN_MEMORY, *masks)}
    options = options_from(given if data is None else {"data": data, **given}, cls)
    if keywords.get("plots", True) or options.save_txt or options.save_json:
        return validate(options)
    return measure(options)


def validate_model(
    model: nn.Module,
    dataloader: Iterable[Any] | None,
    data: Any = None,
    *,
    batch_size: int = 32,
    imgsz: int = 640,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    half: bool = False,
    single_cls: bool = False,
    augment: bool = False,
    verbose: bool = False,
    save_dir: Any = "",
    plots: bool = True,
    save_txt: bool = False,
    save_conf: bool = False,
    save_json: bool = False,
    compute_loss: Any = None,
    callbacks: Any = None,
    task: str = "detect",
    overlap: bool = False,
    mask_downsample_ratio: int = 1,
    **ignored: Any,
) -> EvalResult:
    """Validate a model that is in memory, in a training loop: `val.run(data, model=..., dataloader=...)`.

    Args:
        model: returns decoded boxes, or (decoded, raw maps).
        dataloader: batches (images, targets, paths, shapes), such as those of create_dataloader; by default
            those of the val split of `data`.
        data: data yaml or its content, for the class names; by default those of the model.
        batch_size: images per batch, without a dataloader.
        imgsz: side of the input, without a dataloader.
        conf_thres: confidence threshold.
        iou_thres: NMS IoU threshold.
        max_det: maximum detections per image.
        half: FP16, on CUDA.
        single_cls: treat all objects as class 0.
        augment: test-time augmentation.
        verbose: log the metrics of each class.
        save_dir: folder for plots and files; none are written without it.
        plots: draw curves, the confusion matrix and the first batches.
        save_txt: write labels/*.txt.
        save_conf: with the confidence in these files.
        save_json: write a COCO results file.
        compute_loss: loss of (raw maps, targets), whose items are averaged.
        callbacks: called for each batch and image.
        task: detect, or segment, for which batches end with masks.
        overlap: these masks are one map per image, else one for each target.
        mask_downsample_ratio: the input is this many times as large as the masks, without a dataloader.
        **ignored: keywords of `val.run` that the model and the loader decide.

    Returns:
        Unpacks into (P, R, mAP50, mAP50-95, box, obj, cls), mAP by class, and milliseconds per image.
    """
    from utils.val.evaluate import EvalConfig, evaluate
    from utils.val.outputs import OutputOptions

    names = {0: "item"} if single_cls else class_names(check_dataset(data)["names"] if data else model.names)
    config = EvalConfig(conf_thres, iou_thres, max_det, single_cls, augment, half, verbose=verbose)
    outputs = None
    if str(save_dir) not in ("", ".") and (plots or save_txt or save_json):
        Path(save_dir).mkdir(parents=True, exist_ok=True)
        outputs = OutputOptions(Path(save_dir), plots, save_txt, save_conf, save_json)
    device = next(model.parameters()).device
    if dataloader is None:
        from utils.compat.training import create_dataloader

        stride = max(int(getattr(model, "stride", torch.tensor(32)).max()), 32)
        path = check_dataset(data)["val"]
        masks = MaskFormat(mask_downsample_ratio, overlap) if task == "segment" else None
        settings: dict[str, Any] = {"rect": True, "pad": 0.5, "masks": masks}
        dataloader = create_dataloader(path, imgsz, batch_size, stride, single_cls, **settings)[0]
    hooks = adapted(callbacks) if callbacks is not None else None
    return evaluate(
        model,
        _Batches(dataloader, overlap),
        names,
        config,
        outputs,
        device=device,
        loss=compute_loss,
        callbacks=hooks,
        evaluator=get_task(task).evaluator(),
    )


class _Batches:
    """The batches of a loader as `Batch`."""

    def __init__(self, loader: Any, overlap: bool) -> None:
        self.loader = loader
        self.overlap = overlap

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Any:
        from utils.data.loader import Batch

        return (Batch(*items)._replace(overlap=self.overlap) for items in self.loader)
