"""Small classification models and their images, for the tests of studies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml

from models.weights import model_record, save_checkpoint
from models.yolo import ClassificationModel
from utils.data.shapes import NAMES, make_class_shapes

SIZE = 32
CONFIG: dict[str, Any] = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "backbone": [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "LSKA", [7]]],
    "head": [[-1, 1, "ClassifyLinear", ["nc"]]],
}


def class_folders(home: Path, train: int = 4, val: int = 3) -> Path:
    """Draw a dataset of class folders below `home`; return its folder."""
    return make_class_shapes(home / "classes", train=train, val=val, size=SIZE)


def small_classifiers(home: Path) -> tuple[Path, Path]:
    """Write yamls of `CONFIG` without its gate, and as it is."""
    plain = {**CONFIG, "backbone": CONFIG["backbone"][:-1]}
    for name, config in (("plain", plain), ("gated", CONFIG)):
        (home / f"{name}-cls.yaml").write_text(yaml.safe_dump(config))
    return home / "plain-cls.yaml", home / "gated-cls.yaml"


def classifier(home: Path, name: str = "classifier.pt", seed: int = 0) -> Path:
    """Write an untrained checkpoint with the classes of `class_folders`, and return its path."""
    torch.manual_seed(seed)
    model = ClassificationModel(CONFIG, nc=len(NAMES))
    model.names = dict(enumerate(sorted(NAMES)))
    path = home / name
    save_checkpoint(path, {"epoch": -1, "model": model_record(model), "ema": None, "optimizer": None})
    return path
