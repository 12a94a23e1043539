"""Run a task of a val script: measure a split or the speed of models, or study them over image sizes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from utils.base.log import LOG, color
from utils.base.names import counted
from utils.base.options import changed
from utils.base.paths import claim_folder, remove_if_empty
from utils.base.processes import told_of_others
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
    from utils.plots.painter import start

    start()  # before PyTorch is imported, which takes longer
    with _new_folder(options) as folder:
        result = measure(options, folder)
        if options.save_txt:
            count = len(list(folder.glob("labels/*.txt")))
            LOG.info(f"{counted(count, 'label file')} saved to {folder / 'labels'}")
    LOG.info(f"Results saved to {color(str(folder), 'bold')}")
    return result


def _study(options: ValOptions) -> EvalResult:
    from utils.val.study import study

    last: EvalResult

    def measure_at(file: str, size: int) -> EvalResult:
        nonlocal last
        last = measure(changed(options, weights=file, imgsz=size))
        return last

    with _new_folder(options) as folder:
        study(measure_at, options.weights, Path(options.data).stem, folder)
    return last


@contextmanager
def _new_folder(options: ValOptions) -> Iterator[Path]:
    """Make the folder for the results; a run that fails before it writes anything leaves none."""
    path = Path(options.project) / options.name
    made = [parent for parent in path.parents if not parent.exists()]
    folder = claim_folder(path, options.exist_ok)
    try:
        with told_of_others(folder, options.exist_ok):
            yield folder
    finally:
        for one in (folder, *made):
            remove_if_empty(one)
