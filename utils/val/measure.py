"""Measure one model, or an ensemble, with the options of val.py."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.tasks.task import get_task

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.dataset_yaml import DataSpec
    from utils.ops.metrics import MatchRule
    from utils.val.accumulator import EvalResult
    from utils.val.evaluate import EvalConfig
    from utils.val.outputs import OutputOptions
    from utils.val.val_options import ValOptions


def measure(options: ValOptions, folder: Path | None = None) -> EvalResult:
    """Measure one model or ensemble; plots and other files are written if there is a `folder` for them."""
    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.data.dataset_yaml import read_data_yaml
    from utils.val.evaluate import evaluate

    device = select_device(options.device)
    data = read_data_yaml(options.data, allow_download=options.download)
    backend = load_backend(
        options.weights, device, names=data.names, half=options.half, dnn=options.dnn, runtime=options.runtime
    )
    task = get_task(options.model_task)
    task.check(backend.task, " ".join(options.weights), task.scripts[1])
    _check_classes(backend, data, options)
    backend.warn_about_conf_thres(options.conf_thres)
    height, width = backend.imgsz or (0, 0)
    if height != width:
        raise ConfigError(
            f"--weights {options.weights[0]} takes images of {height}x{width} only, and val.py measures in "
            "squares: export it with a square --imgsz, or to onnx or openvino with --dynamic"
        )
    loader, shape = _make_loader(options, backend, data)
    if device.type != "cpu" or options.task in ("speed", "study"):
        backend.warmup((1, *shape[1:]) if backend.pt else shape)
    config = _eval_config(options, half=backend.fp16, hybrid=folder is not None and options.save_hybrid)
    outputs = None if folder is None else _output_options(options, folder, data)
    names = {0: "item"} if options.single_cls else data.names
    with closing(loader):
        result = evaluate(backend, loader, names, config, outputs, device=device, evaluator=task.evaluator())
    speeds = "Speed: %.1fms pre-process, %.1fms inference, %.1fms NMS per image at shape %s"
    LOG.info(speeds, *result.speeds, shape)
    return result


def _eval_config(options: ValOptions, half: bool, hybrid: bool) -> EvalConfig:
    from utils.val.evaluate import EvalConfig

    return EvalConfig(
        conf_thres=options.conf_thres,
        iou_thres=options.iou_thres,
        max_det=options.max_det,
        single_cls=options.single_cls,
        augment=options.augment,
        half=half,
        hybrid=hybrid,
        match=cast("MatchRule", options.match),
        full_masks=getattr(options, "mask_size", "") == "full",
        verbose=options.verbose,
    )


def _output_options(options: ValOptions, folder: Path, data: DataSpec) -> OutputOptions:
    from utils.val.outputs import OutputOptions

    folder.mkdir(parents=True, exist_ok=True)
    return OutputOptions(
        folder,
        plots=True,
        save_txt=options.save_txt,
        save_conf=options.save_conf,
        save_json=options.save_json,
        json_stem=Path(options.weights[0]).stem,
        coco_root=data.root if data.is_coco else None,
    )


def _make_loader(
    options: ValOptions, backend: Backend, data: DataSpec
) -> tuple[Any, tuple[int, int, int, int]]:
    """Return the loader of the split, and the largest shape of its batches.

    PyTorch models get the smallest rectangles with a margin of half a stride; other backends, and speed
    tests, get squares.
    """
    from utils.data.dataset import DetectionDataset
    from utils.data.letterbox import check_img_size
    from utils.data.loader import make_loader

    split = options.task if options.task in ("train", "test") else "val"
    sources = getattr(data, split)
    if not sources:
        raise ConfigError(f"--task {split}: {data.yaml} has no key '{split}'")
    imgsz = check_img_size(options.imgsz, stride=backend.stride)
    assert isinstance(imgsz, int)
    rect = backend.pt and options.task != "speed"
    dataset = DetectionDataset(
        sources,
        imgsz,
        batch_size=options.batch_size,
        stride=backend.stride,
        rect=rect,
        pad=0.5 if rect else 0.0,
        single_cls=options.single_cls,
        names=data.names,
        masks=get_task(options.model_task).mask_format(options, False, backend.mask_ratio),
        prefix=f"{split}: ",
    )
    loader = make_loader(dataset, options.batch_size, workers=options.workers)
    return loader, (options.batch_size, 3, imgsz, imgsz)


def _check_classes(backend: Backend, data: DataSpec, options: ValOptions) -> None:
    """Check that model and dataset have the same classes; other names for them give a warning only."""
    if options.single_cls:
        return
    if backend.nc != data.nc:
        raise ConfigError(
            f"--weights {' '.join(options.weights)} has {backend.nc} classes, "
            f"--data {options.data} has {data.nc}: give the dataset it was trained on, or --single-cls"
        )
    if backend.names != data.names:
        index = next(i for i in data.names if backend.names.get(i) != data.names[i])
        LOG.warning(
            f"class {index} is {backend.names.get(index)} in the weights, {data.names[index]} in --data"
        )
