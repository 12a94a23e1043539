"""Compare images with golden ones, and make small datasets for the tests."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.known import SHARED, pattern_image

OPENCV_5 = cv2.__version__.startswith("5.")


def golden_pattern(text: str) -> np.ndarray:
    """Return the image named `pattern_image(h,w,k)` or `pattern_HxW_kK`."""
    height, width, k = map(int, re.findall(r"\d+", text))
    return pattern_image(height, width, k)


def golden_image(name: str) -> np.ndarray:
    """Return an image of the golden letterbox cases."""
    if name.startswith("pattern"):
        return golden_pattern(name)
    folder = SHARED / "data" / ("bccd/images/train" if name.startswith("Blood") else "")
    path = folder / name if "." in name else folder / f"{name}.jpg"
    found = path if path.exists() else next((SHARED / "data/bccd/images").rglob(path.name))
    image = cv2.imread(str(found))
    assert image is not None
    return image


def assert_same_image(image: np.ndarray, golden: dict[str, Any], off: int = 2) -> None:
    """Compare bit by bit with OpenCV 5; with other versions, the recorded pixels within `off`."""
    assert list(image.shape) == golden.get("shape", golden.get("out_shape", [*golden.get("hw", []), 3]))
    if OPENCV_5:
        assert hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest() == golden["sha256"]
    rows = np.array(golden["samples"])
    assert np.abs(image[rows[:, 0], rows[:, 1]].astype(int) - rows[:, 2:]).max() <= off


def make_set(
    root: Path, count: int = 6, split: str = "train", sizes: tuple[tuple[int, int], ...] = ((60, 80),)
) -> Path:
    """Write `count` images (height, width) with two labels each below root/images and root/labels."""
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in range(count):
        height, width = sizes[number % len(sizes)]
        data = cv2.imencode(".png", pattern_image(height, width, 40 * number))[1]
        (images / f"{number:03d}.png").write_bytes(data.tobytes())
        (labels / f"{number:03d}.txt").write_text(f"{number % 3} 0.5 0.5 0.4 0.6\n1 0.3 0.7 0.2 0.25\n")
    return images
