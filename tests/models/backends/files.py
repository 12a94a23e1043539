"""A small model in every format, exported once per test session."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from torch import Tensor

from models.weights import load_for_inference, model_record, save_checkpoint
from models.yolo import DetectionModel
from tests.known import fill, pattern_image, to_tensor
from utils.export import export_function
from utils.export.export_settings import ExportSettings

NAMES = {0: "cell", 1: "red plate"}
CPU = torch.device("cpu")
SIDE = 64
_TINY = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 0.25,
    "anchors": [[10, 13, 16, 30], [30, 61, 62, 45]],
    "backbone": [
        [-1, 1, "Conv", [32, 6, 4, 2]],
        [-1, 1, "Conv", [32, 3, 4]],
        [-1, 1, "C3", [64]],
        [-1, 1, "Conv", [64, 3, 2]],
    ],
    "head": [[[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


def tiny_model() -> DetectionModel:
    """Make a model of strides 16 and 32 and two classes, always with the same weights."""
    model = DetectionModel(_TINY)
    fill(model, 4)
    model.names = dict(NAMES)
    return model.eval()


def example(images: int = 1, side: int = SIDE) -> Tensor:
    """Make a batch of smooth images (B, 3, side, side)."""
    return torch.cat([to_tensor(pattern_image(side, side, 40 * index)[None]) for index in range(images)])


def expected(images: Tensor) -> Tensor:
    """Return the decoded boxes of PyTorch for them."""
    with torch.inference_mode():
        return load_for_inference(checkpoint(), CPU)(images)[0]


@cache
def checkpoint() -> Path:
    """Save the model as a .pt file."""
    path = _folder() / "tiny.pt"
    model = tiny_model()
    save_checkpoint(path, {"model": model_record(model)})
    return path


@cache
def exported(name: str, dynamic: bool = False) -> Path:
    """Export the model to another format."""
    path = _folder() / f"tiny{'-dynamic' * dynamic}.{name}"
    model = load_for_inference(checkpoint(), CPU)
    assert isinstance(model, DetectionModel)
    model.head.export = True
    make = export_function(name)
    make(model, example(), path, ExportSettings(stride=32, names=NAMES, include=[name], dynamic=dynamic))
    return path


@cache
def _folder() -> Path:
    import atexit

    folder = Path(mkdtemp(prefix="formats-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
