"""Measure a model on labelled images: precision, recall, mAP, speed.

    python val.py --weights yolov5s.pt --data data/coco128.yaml --img 640     # the val split
    python val.py --weights a.pt b.pt --task test                             # an ensemble, the test split
    python val.py --weights a.pt b.pt --task study                            # sizes from 256 to 1536

From Python: `result = val.run(weights="yolov5s.pt", data="coco128.yaml")`, then `result.map50`; or as the
original has it, `(p, r, map50, map, *losses), maps, speeds = val.run(...)`.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.log import LOG, color, set_up_console
from utils.base.paths import increment_path
from utils.base.script import main, print_args
from utils.val.measure import measure
from utils.val.val_options import options_from, parse_options

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult

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
