"""Measure one model, or an ensemble, with the options of val.py."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from utils.base.errors import ConfigError, memory_errors
from utils.base.log import LOG
from utils.tasks.task import get_task

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.dataset_yaml import DataSpec
    from utils.data.loader import Loader
    from utils.ops.metrics import MatchRule
    from utils.val.evaluate import EvalConfig
    from utils.val.outputs import OutputOptions
    from utils.val.val_options import ValOptions


def measure(options: ValOptions, folder: Path | None = None) -> Any:
    """Measure one model or ensemble; plots and other files are written if there is a `folder` for them."""
    from models.backends import load_backend
    from models.user_blocks import load_blocks
    from utils.base.device import select_device
    from utils.val.evaluate import evaluate

    load_blocks(options.blocks)
    device, task = select_device(options.device), get_task(options.model_task)
    data = task.read_val_data(options)
    backend = load_backend(
        options.weights, device, names=data.names, half=options.half, dnn=options.dnn, runtime=options.runtime
    )
    task.check(backend.task, " ".join(options.weights), task.scripts[1])
    task.check_classes(backend, data, options)
    backend.warn_about_conf_thres(options.conf_thres)
    height, width = backend.imgsz or (0, 0)
    if height != width:
        raise ConfigError(
            f"--weights {options.weights[0]} takes images of {height}x{width} only, and val.py measures in "
            "squares: export it with a square --imgsz, or to onnx or openvino with --dynamic"
        )
    loader = _make_loader(options, backend, data)
    shape = (options.batch_size, 3, loader.dataset.imgsz, loader.dataset.imgsz)
    config = _eval_config(options, half=backend.fp16, hybrid=folder is not None and options.save_hybrid)
    outputs = None if folder is None else _output_options(options, folder, data, loader)
    names = {0: "item"} if options.single_cls else task.names_of(backend, data)
    sides = shape[3:] if backend.pt else ()  # an exported model may take one size only
    with closing(loader), memory_errors(options.batch_size, sides):
        if device.type != "cpu" or options.task in ("speed", "study"):
            backend.warmup((1, *shape[1:]) if backend.pt else shape)
        result = evaluate(backend, loader, names, config, outputs, device=device, evaluator=task.evaluator())
    last = "NMS" if task.draws_boxes else "post-process"
    speeds = f"Speed: %.1fms pre-process, %.1fms inference, %.1fms {last} per image at shape %s"
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
        one_by_one=options.task in ("speed", "study"),
        match=cast("MatchRule", options.match),
        full_masks=getattr(options, "mask_size", "") == "full",
        verbose=options.verbose or (None if get_task(options.model_task).draws_boxes else False),
    )


def _output_options(options: ValOptions, folder: Path, data: DataSpec, loader: Loader) -> OutputOptions:
    from utils.val.coco_truth import load_truth
    from utils.val.outputs import OutputOptions

    truth = None
    if options.save_json:
        paths = [str(path) for path in loader.dataset.image_files]
        truth = load_truth(data, _split(options), paths, file=options.ann, single_cls=options.single_cls)
    folder.mkdir(parents=True, exist_ok=True)
    return OutputOptions(
        folder,
        plots=True,
        save_txt=options.save_txt,
        save_conf=options.save_conf,
        save_json=options.save_json,
        json_stem=Path(options.weights[0]).stem,
        stems={path.stem for path in loader.dataset.image_files} if options.save_txt else (),
        truth=truth,
    )


def _split(options: ValOptions) -> str:
    return options.task if options.task in ("train", "test") else "val"


def _make_loader(options: ValOptions, backend: Backend, data: DataSpec) -> Loader:
    """Return the loader of the split."""
    from utils.data.loader import make_loader

    task, split = get_task(options.model_task), _split(options)
    if not getattr(data, split):
        raise ConfigError(f"--task {split}: {data.yaml} has no {task.split_noun} '{split}'")
    dataset = task.make_val_dataset(options, split, data, backend)
    return make_loader(dataset, options.batch_size, workers=options.workers)
