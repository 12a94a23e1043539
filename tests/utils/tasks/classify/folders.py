"""Class folders with small images, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from tests.known import pattern_image


def write(path: Path, image: np.ndarray) -> Path:
    """Write an image, whose format is that of the suffix; unlike cv2.imwrite to any path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


def make_folders(root: Path, **splits: Mapping[str, int]) -> Path:
    """Write images of 24 x 32 pixels: `train={"cat": 3}` makes train/cat/0.png, 1.png and 2.png."""
    number = 0
    for split, classes in splits.items():
        for name, count in classes.items():
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                write(root / split / name / f"{index}.png", pattern_image(24, 32, 11 * number))
                number += 1
    return root
