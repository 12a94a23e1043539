"""Measure a model on labelled pictures: precision, recall, mAP, speed.

    python val.py --weights yolov5s.pt --data data/coco128.yaml --img 640     # the val split
    python val.py --weights a.pt b.pt --task test                             # an ensemble, the test split
    python val.py --weights a.pt b.pt --task study                            # sizes from 256 to 1536

From Python: `result = val.run(weights="yolov5s.pt", data="coco128.yaml")`, then `result.map50`; or as the
original has it, `(p, r, map50, map, *losses), maps, speeds = val.run(...)`.
"""

from __future__ import annotations

from argparse import Namespace
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.log import LOG, color, set_up_console
from utils.base.paths import increment_path
from utils.base.script import main, print_args
from utils.val.options import options_from, parse_options

if TYPE_CHECKING:
    from models.backends.base import Backend
    from utils.data.dataset_yaml import DataSpec
    from utils.val.result import EvalResult

# Flags that `evaluate` knows by the same name.
SAME = ("conf_thres", "iou_thres", "max_det", "single_cls", "augment", "save_conf", "verbose", "match")
SPEED = {"conf_thres": 0.25, "iou_thres": 0.45}  # --task speed: suppression as detect.py has it


def run(**keywords: Any) -> EvalResult:
    """Measure from Python: keywords are the flags with underscores; the last measurement is returned."""
    set_up_console()
    return validate(options_from(keywords))


def validate(opt: Namespace) -> EvalResult:
    """Do what `--task` says."""
    if opt.task == "study":
        return _study(opt)
    if opt.task == "speed":
        results = [measure(Namespace(**{**vars(opt), **SPEED, "weights": [file]})) for file in opt.weights]
        return results[-1]
    folder = _new_folder(opt)
    result = measure(opt, folder)
    if opt.save_txt:
        LOG.info(f"{len(list(folder.glob('labels/*.txt')))} label files saved to {folder / 'labels'}")
    LOG.info(f"Results saved to {color(str(folder), 'bold')}")
    return result


def measure(opt: Namespace, folder: Path | None = None) -> EvalResult:
    """Measure one model or ensemble; pictures and files are made if there is a `folder` for them."""
    from models.backends import load_backend
    from utils.base.device import select_device
    from utils.data.dataset_yaml import read_data_yaml
    from utils.val.evaluate import evaluate

    device = select_device(opt.device)
    data = read_data_yaml(opt.data, allow_download=opt.download)
    backend = load_backend(opt.weights, device, names=data.names, half=opt.half, dnn=opt.dnn)
    _check_classes(backend, data, opt)
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
    """Refuse a model and a data set that do not belong together."""
    if opt.single_cls:
        return
    if backend.nc != data.nc:
        raise ConfigError(
            f"--weights {' '.join(opt.weights)} has {backend.nc} classes, --data {opt.data} has {data.nc}: "
            "give the data set that it was trained on, or --single-cls"
        )
    if backend.names != data.names:
        index = next(i for i in data.names if backend.names.get(i) != data.names[i])
        LOG.warning(
            f"class {index} is {backend.names.get(index)} in the weights, {data.names[index]} in --data"
        )


def _study(opt: Namespace) -> EvalResult:
    from utils.val.study import study

    folder = _new_folder(opt)
    last: EvalResult

    def measure_at(file: str, size: int) -> EvalResult:
        nonlocal last
        last = measure(Namespace(**{**vars(opt), "weights": [file], "imgsz": size}))
        folder.mkdir(parents=True, exist_ok=True)
        return last

    study(measure_at, opt.weights, Path(opt.data).stem, folder)
    return last


def _new_folder(opt: Namespace) -> Path:
    """Where results will be; made when there is something to write, so that a mistake leaves no folder."""
    return increment_path(Path(opt.project) / opt.name, opt.exist_ok)


def command_line() -> None:
    """Parse before anything heavy is imported, then measure."""
    opt = parse_options()
    print_args("val", opt)
    validate(opt)


if __name__ == "__main__":
    main(command_line)
