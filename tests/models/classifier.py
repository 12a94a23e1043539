"""A small classification model with random weights, saved once per test session."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

from models.weights import model_record, save_checkpoint
from models.yolo import ClassificationModel
from tests.known import fill

NAMES = dict(enumerate(("rbc", "wbc", "platelet", "red/cell", "dust", "edge")))


@cache
def classifier() -> Path:
    """Save the model; return its path."""
    model = ClassificationModel("yolov5n-cls.yaml", nc=len(NAMES))
    fill(model, 4)
    model.names = dict(NAMES)
    path = Path(mkdtemp(prefix="classifier-")) / "tiny-cls.pt"
    save_checkpoint(path, {"model": model_record(model)})
    return path
