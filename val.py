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
from utils.base.log import set_up_console
from utils.base.yolov5_names import serve
from utils.val.val_options import ValOptions, parse_options
from utils.val.validate import validate

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult


def run(data: Any = None, *values: Any, **kwargs: Any) -> EvalResult:
    """Validate from Python and return the result of the last model measured.

    Keywords are the flags with underscores, such as `batch_size=16`; the first ones may be given by position:
    data, weights, batch_size, imgsz, conf_thres, iou_thres, max_det. `data` may be the content of a yaml.
    With `model` a model in memory is validated, see `utils.compat.scripts.validate_model`.
    """
    set_up_console()
    from utils.compat.scripts import run_validation

    return run_validation(ValOptions, data, values, kwargs)


def main() -> None:
    """Validate as the command line says; nothing heavy is imported before it is parsed."""
    options = parse_options()
    script.print_args("val", options)
    validate(options)


__getattr__, __dir__, _ = serve("val")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
