"""Small segmentation models and their images, for the tests of studies."""

from __future__ import annotations

from pathlib import Path

import torch

from models.weights import model_record, save_checkpoint
from models.yolo import DetectionModel
from tests.utils.train.small import small_segmenter, small_set, with_polygons
from utils.data.shapes import NAMES


def polygon_set(home: Path, train: int = 8, val: int = 4) -> Path:
    """Draw a dataset of 64 x 64 pixel images with polygons below `home`; return its yaml."""
    data = small_set(home, train, val)
    with_polygons(home)
    return data


def segmenter(home: Path, name: str = "segmenter.pt", seed: int = 0) -> Path:
    """Write an untrained checkpoint with the classes of `polygon_set`, and return its path."""
    torch.manual_seed(seed)
    model = DetectionModel(small_segmenter(home), nc=len(NAMES))
    model.names = dict(enumerate(NAMES))
    path = home / name
    save_checkpoint(path, {"epoch": -1, "model": model_record(model), "ema": None, "optimizer": None})
    return path
