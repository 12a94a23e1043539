"""Train a YOLOv5 detector, with or without LSKA.

python train.py --img 320 --data data/shapes.yaml --cfg yolov5n-LSKA.yaml --weights yolov5n.pt
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "." in __name__:  # `yolov5.train`: the packages are beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from studies import training
from studies.training import train
from utils.base import script
from utils.base.yolov5_names import serve
from utils.train.train_options import TrainOptions, parse_options

if TYPE_CHECKING:
    from utils.train.run_dir import TrainResult


def run(**keywords: Any) -> TrainResult:
    """Train from Python: keywords are the flags with underscores, `train.run(imgsz=320, epochs=3)`.

    As in the original, keywords that are no flags have no effect; they are logged.
    """
    return training.run(TrainOptions, keywords)


def main() -> None:
    """Train as the command line says."""
    options = parse_options()
    script.print_args("train", options)
    train(options)


__getattr__, __dir__, _ = serve("train")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
