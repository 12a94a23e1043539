"""Classify images, videos and streams.

    python classify/predict.py --weights yolov5s-cls.pt --source image.jpg   # sources as detect.py
    python classify/predict.py --weights yolov5s-cls.pt --save-txt --save-csv

From Python: `run(weights="yolov5s-cls.pt", source="image.jpg")`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: the project, not classify/

from utils.base import script
from utils.base.options import options_from, parse_options
from utils.tasks.classify.options import ClassifyPredictOptions

if TYPE_CHECKING:
    from utils.predict.detector import DetectSummary


def run(**keywords: Any) -> DetectSummary:
    """Classify; keywords are the flags with underscores, and have the same defaults."""
    return _classify(options_from(ClassifyPredictOptions, keywords))


def main() -> None:
    """Parse the command line, then classify."""
    options = parse_options(ClassifyPredictOptions)
    script.print_args("classify/predict", options)
    _classify(options)


def _classify(options: ClassifyPredictOptions) -> DetectSummary:
    from utils.predict.detector import detect  # imports torch, which --help does not need

    return detect(options)


if __name__ == "__main__":
    script.main(main)
