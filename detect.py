"""Detect objects in images, videos and streams.

    python detect.py --weights yolov5s.pt --source image.jpg   # file, folder, "glob*", list.txt, video
    python detect.py --weights yolov5s.pt --source 0           # camera, rtsp:// URL, screen

From Python: `detect.run(weights="yolov5s.pt", source="image.jpg")`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "." in __name__:  # `yolov5.detect`: the packages are beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from utils.base import script
from utils.base.options import options_from, parse_options
from utils.base.yolov5_names import serve
from utils.predict.detect_options import DetectOptions

if TYPE_CHECKING:
    from utils.predict.detector import DetectSummary


def run(**kwargs: Any) -> DetectSummary:
    """Detect objects; keywords are the flags with underscores, and have the same defaults."""
    return _detect(options_from(DetectOptions, kwargs))


def main() -> None:
    """Parse the command line, then detect objects."""
    options = parse_options(DetectOptions)
    script.print_args("detect", options)
    _detect(options)


def _detect(options: DetectOptions) -> DetectSummary:
    from utils.predict.detector import detect  # imports torch, which --help does not need

    return detect(options)


__getattr__, __dir__, _ = serve("detect")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
