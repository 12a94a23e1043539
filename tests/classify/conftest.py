"""A small training of a classification model on drawn shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from classify import train
from tests.classify.small import SMALL, Flags
from utils.data.shapes import make_class_shapes
from utils.train.run_dir import TrainResult


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn shapes, and the yaml of a small classifier."""
    folder = tmp_path_factory.mktemp("class ify")
    make_class_shapes(folder / "set", train=8, val=4, size=32)
    (folder / "small-cls.yaml").write_text(yaml.safe_dump(SMALL))
    return folder


@pytest.fixture(scope="module")
def flags(home: Path) -> Flags:
    """Options of a small model on small images, with changes."""

    def make(**changes: Any) -> dict[str, Any]:
        fixed = {"model": "", "imgsz": 32, "batch_size": 8, "workers": 0, "device": "cpu", "noplots": True}
        paths = {"data": home / "set", "cfg": home / "small-cls.yaml", "project": home / "runs"}
        return {**fixed, **paths, "epochs": 2, **changes}

    return make


@pytest.fixture(scope="module")
def trained(flags: Flags) -> TrainResult:
    """A run with all of its files."""
    return train.run(**flags(noplots=False, name="whole", save_period=1))
