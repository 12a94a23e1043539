"""Segment objects in images, videos and streams.

    python segment/predict.py --weights yolov5s-seg.pt --source image.jpg   # sources as detect.py
    python segment/predict.py --weights yolov5s-seg.pt --retina-masks --save-txt

From Python: `run(weights="yolov5s-seg.pt", source="image.jpg")`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: the project, not segment/

from utils.base import script
from utils.base.options import options_from, parse_options
from utils.tasks.segment.options import PredictOptions

if TYPE_CHECKING:
    from utils.predict.detector import DetectSummary


def run(**keywords: Any) -> DetectSummary:
    """Segment objects; keywords are the flags with underscores, and have the same defaults."""
    return _segment(options_from(PredictOptions, keywords))


def main() -> None:
    """Parse the command line, then segment objects."""
    options = parse_options(PredictOptions)
    script.print_args("segment/predict", options)
    _segment(options)


def _segment(options: PredictOptions) -> DetectSummary:
    from utils.predict.detector import detect  # imports torch, which --help does not need

    return detect(options)


if __name__ == "__main__":
    script.main(main)
