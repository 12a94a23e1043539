"""Measure one model, or an ensemble, as the flags of val.py say."""

from __future__ import annotations

from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.log import LOG

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.dataset_yaml import DataSpec
    from utils.val.accumulator import EvalResult

# Flags that `evaluate` knows by the same name.
SAME = ("conf_thres", "iou_thres", "max_det", "single_cls", "augment", "save_conf", "verbose", "match")


def measure(opt: Namespace, folder: Path | None = None) -> EvalResult:
    """Measure one model or ensemble; images and files are made if there is a `folder` for them."""
    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.data.dataset_yaml import read_data_yaml
    from utils.val.evaluate import evaluate

    device = select_device(opt.device)
    data = read_data_yaml(opt.data, allow_download=opt.download)
    backend = load_backend(
        opt.weights, device, names=data.names, half=opt.half, dnn=opt.dnn, runtime=opt.runtime
    )
    _check_classes(backend, data, opt)
    backend.warn_about_conf_thres(opt.conf_thres)
    height, width = backend.imgsz or (0, 0)
    if height != width:
        raise ConfigError(
            f"--weights {opt.weights[0]} takes images of {height}x{width} only, and val.py measures in "
            "squares: export it with a square --imgsz, or to onnx or openvino with --dynamic"
        )
    loader, shape = _make_loader(opt, backend, data)
    if device.type != "cpu" or opt.task in ("speed", "study"):
        backend.warmup((1, *shape[1:]) if backend.pt else shape)
    writes = folder is not None
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
    with closing(loader):
        result = evaluate(
            backend,
            loader,
            {0: "item"} if opt.single_cls else data.names,
            device=device,
            half=backend.fp16,
            save_dir=folder,
            plots=writes,
            save_txt=writes and opt.save_txt,
            save_hybrid=writes and opt.save_hybrid,
            save_json=writes and opt.save_json,
            json_stem=Path(opt.weights[0]).stem,
            data=data,
            **{name: getattr(opt, name) for name in SAME},
        )
    speeds = "Speed: %.1fms pre-process, %.1fms inference, %.1fms NMS per image at shape %s"
    LOG.info(speeds, *result.speeds, shape)
    return result


def _make_loader(opt: Namespace, backend: Backend, data: DataSpec) -> tuple[Any, tuple[int, int, int, int]]:
    """Batches of the split, and the shape they have at most.

    PyTorch models get the smallest rectangles with half a stride around; others, and speed tests, squares.
    """
    from utils.data.dataset import DetectionDataset
    from utils.data.letterbox import check_img_size
    from utils.data.loader import make_loader

    split = opt.task if opt.task in ("train", "test") else "val"
    sources = getattr(data, split)
    if not sources:
        raise ConfigError(f"--task {split}: {data.yaml} has no key '{split}'")
    imgsz = check_img_size(opt.imgsz, stride=backend.stride)
    assert isinstance(imgsz, int)
    rect = backend.pt and opt.task != "speed"
    dataset = DetectionDataset(
        sources,
        imgsz,
        batch_size=opt.batch_size,
        stride=backend.stride,
        rect=rect,
        pad=0.5 if rect else 0.0,
        single_cls=opt.single_cls,
        names=data.names,
        prefix=f"{split}: ",
    )
    return make_loader(dataset, opt.batch_size, workers=opt.workers), (opt.batch_size, 3, imgsz, imgsz)


def _check_classes(backend: Backend, data: DataSpec, opt: Namespace) -> None:
    """Refuse a model and a dataset that do not belong together."""
    if opt.single_cls:
        return
    if backend.nc != data.nc:
        raise ConfigError(
            f"--weights {' '.join(opt.weights)} has {backend.nc} classes, --data {opt.data} has {data.nc}: "
            "give the dataset that it was trained on, or --single-cls"
        )
    if backend.names != data.names:
        index = next(i for i in data.names if backend.names.get(i) != data.names[i])
        LOG.warning(
            f"class {index} is {backend.names.get(index)} in the weights, {data.names[index]} in --data"
        )
