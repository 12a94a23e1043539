"""Train a YOLOv5 segmentation model, with or without LSKA.

python segment/train.py --img 320 --data data/shapes-seg.yaml --cfg yolov5n-seg-LSKA.yaml --weights yolov5n.pt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: the project, not segment/

from studies import training
from utils.base import script
from utils.base.options import parse_options
from utils.tasks.segment.options import SegmentTrainOptions

if TYPE_CHECKING:
    from utils.train.run_dir import TrainResult


def run(**keywords: Any) -> TrainResult:
    """Train from Python: keywords are the flags with underscores; others have no effect, and are logged."""
    return training.run(SegmentTrainOptions, keywords)


def main() -> None:
    """Train as the command line says."""
    options = parse_options(SegmentTrainOptions)
    script.print_args("segment/train", options)
    training.train(options)


if __name__ == "__main__":
    script.main(main)
