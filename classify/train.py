"""Train a classification model, with or without LSKA.

python classify/train.py --model yolov5n.pt --data cells --imgsz 96 --cfg yolov5n-cls-LSKA.yaml
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if Path(sys.path[0]).resolve() == Path(__file__).resolve().parent:
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # run as a script: the project, not classify/

from studies import training
from utils.base import script
from utils.base.options import parse_options
from utils.tasks.classify.options import ClassifyTrainOptions

if TYPE_CHECKING:
    from utils.train.run_dir import TrainResult


def run(**keywords: Any) -> TrainResult:
    """Train from Python: keywords are the flags with underscores; others have no effect, and are logged."""
    return training.run(ClassifyTrainOptions, keywords)


def main() -> None:
    """Train as the command line says."""
    options = parse_options(ClassifyTrainOptions)
    script.print_args("classify/train", options)
    training.train(options)


if __name__ == "__main__":
    script.main(main)
