"""Run a task of a val script: measure a split or the speed of models, or study them over image sizes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.base.log import LOG, color
from utils.base.names import counted
from utils.base.options import changed
from utils.base.paths import check_writable, increment_path
from utils.val.measure import measure
from utils.val.val_options import ValOptions

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult

SPEED_THRESHOLDS = {"conf_thres": 0.25, "iou_thres": 0.45}  # --task speed: NMS as in detect.py


def validate(options: ValOptions) -> EvalResult:
    """Run the task that the options name and return the result of the last model measured."""
    if options.task == "study":
        return _study(options)
    if options.task == "speed":
        return [measure(changed(options, weights=file, **SPEED_THRESHOLDS)) for file in options.weights][-1]
    folder = _new_folder(options)
    result = measure(options, folder)
    if options.save_txt:
        count = len(list(folder.glob("labels/*.txt")))
        LOG.info(f"{counted(count, 'label file')} saved to {folder / 'labels'}")
    LOG.info(f"Results saved to {color(str(folder), 'bold')}")
    return result


def _study(options: ValOptions) -> EvalResult:
    from utils.val.study import study

    folder = _new_folder(options)
    last: EvalResult

    def measure_at(file: str, size: int) -> EvalResult:
        nonlocal last
        last = measure(changed(options, weights=file, imgsz=size))
        folder.mkdir(parents=True, exist_ok=True)
        return last

    study(measure_at, options.weights, Path(options.data).stem, folder)
    return last


def _new_folder(options: ValOptions) -> Path:
    """Return the folder for the results. It is made when there is something to write, not if a run fails."""
    folder = increment_path(Path(options.project) / options.name, options.exist_ok)
    check_writable(folder)
    return folder
