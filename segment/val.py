"""Measure a segmentation model on labelled images: precision, recall and mAP of boxes and masks, speed.

    python segment/val.py --weights yolov5s-seg.pt --data data/coco128-seg.yaml --img 640

From Python: `result = run(weights="yolov5s-seg.pt", data="coco128-seg.yaml")`, then `result.mask.map50`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: the project, not segment/

from utils.base import script
from utils.base.log import set_up_console
from utils.tasks.segment.options import SegmentValOptions
from utils.val.val_options import parse_options
from utils.val.validate import validate

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult


def run(data: Any = None, *values: Any, **keywords: Any) -> EvalResult:
    """Validate from Python; arguments as those of `val.run`, and the flags of this script."""
    set_up_console()
    from utils.compat.scripts import run_validation

    return run_validation(SegmentValOptions, data, values, keywords)


def main() -> None:
    """Validate as the command line says; nothing heavy is imported before it is parsed."""
    options = parse_options(cls=SegmentValOptions)
    script.print_args("segment/val", options)
    validate(options)


if __name__ == "__main__":
    script.main(main)
