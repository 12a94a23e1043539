"""Measure a model on labelled images: precision, recall, mAP, speed.

    python val.py --weights yolov5s.pt --data data/coco128.yaml --img 640     # the val split
    python val.py --weights a.pt b.pt --task test                             # an ensemble, the test split
    python val.py --weights a.pt b.pt --task study                            # sizes from 256 to 1536

From Python: `result = val.run(weights="yolov5s.pt", data="coco128.yaml")`, then `result.map50`; or as the
original has it, `(p, r, map50, map, *losses), maps, speeds = val.run(...)`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "." in __name__:  # `yolov5.val`: the packages are beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from utils.base import script
from utils.base.log import LOG, color, set_up_console
from utils.base.options import changed
from utils.base.paths import check_writable, increment_path
from utils.base.yolov5_names import serve
from utils.val.measure import measure
from utils.val.val_options import ValOptions, options_from, parse_options

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult

_IN_MEMORY = ("model", "dataloader", "save_dir", "plots", "callbacks", "compute_loss")
_POSITIONAL = ("weights", "batch_size", "imgsz", "conf_thres", "iou_thres", "max_det")
SPEED_THRESHOLDS = {"conf_thres": 0.25, "iou_thres": 0.45}  # --task speed: NMS as in detect.py


def run(data: Any = None, *values: Any, **kwargs: Any) -> EvalResult:
    """Validate from Python and return the result of the last model measured.

    Keywords are the flags with underscores, such as `batch_size=16`; those of `_POSITIONAL` may be given by
    position. `data` may be the content of a yaml. With `model` a model in memory is validated, see
    `utils.compat.scripts.validate_model`.
    """
    set_up_console()
    kwargs |= dict(zip(_POSITIONAL, values, strict=False))
    if isinstance(data, dict):
        from utils.compat.checks import as_yaml

        with as_yaml(data) as file:
            return run(file, **kwargs)
    if kwargs.get("model") is not None:
        from utils.compat.scripts import validate_model

        return validate_model(kwargs.pop("model"), kwargs.pop("dataloader", None), data, **kwargs)
    given = {key: value for key, value in kwargs.items() if key not in _IN_MEMORY}
    options = options_from(given if data is None else {"data": data, **given})
    if kwargs.get("plots", True) or options.save_txt or options.save_json:
        return validate(options)
    return measure(options)


def validate(options: ValOptions) -> EvalResult:
    """Run the task that the options name and return the result of the last model measured."""
    if options.task == "study":
        return _study(options)
    if options.task == "speed":
        return [measure(changed(options, weights=file, **SPEED_THRESHOLDS)) for file in options.weights][-1]
    folder = _new_folder(options)
    result = measure(options, folder)
    if options.save_txt:
        LOG.info(f"{len(list(folder.glob('labels/*.txt')))} label files saved to {folder / 'labels'}")
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


def main() -> None:
    """Validate as the command line says; nothing heavy is imported before it is parsed."""
    options = parse_options()
    script.print_args("val", options)
    validate(options)


__getattr__, __dir__, _ = serve("val")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
