"""Draw images whose class is seen only from afar: the direction from a red disc to a blue one.

Every part of an image that shows one disc looks the same in all classes. A network has to relate the two
discs, through the receptive field of one layer or of several.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np

from utils.base.seeds import generator
from utils.data.shapes import save_jpeg

SIDE = 64  # of the images, pixels
RADIUS = 4  # of the discs, pixels
DIRECTIONS = {"right": 0, "below": 90, "left": 180, "above": 270}  # degrees, clockwise
_SPREAD = 30  # largest change of a direction, degrees
_DISTANCES = (14, 34)  # of the centres, pixels
_RED, _BLUE = (40, 40, 220), (220, 60, 40)  # BGR


def make_context_images(root: Path, train: int = 100, val: int = 100, seed: int = 0) -> Path:
    """Draw a dataset of class folders, unless it exists; `train` and `val` are images of each class."""
    if root.is_dir():
        return root
    fresh = root.with_name(f".{root.name}-new")
    shutil.rmtree(fresh, ignore_errors=True)
    for split, count in (("train", train), ("val", val)):
        for index, (name, direction) in enumerate(DIRECTIONS.items()):
            folder = fresh / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                rng = generator(seed, split == "val", index, number)
                save_jpeg(folder / f"{number:04d}.jpg", draw_pair(rng, direction))
    fresh.rename(root)
    return root


def draw_pair(rng: np.random.Generator, direction: float) -> np.ndarray:
    """Draw a red disc and a blue one in a direction from it, on noise: (SIDE, SIDE, 3) uint8 BGR."""
    image = np.full((SIDE, SIDE, 3), rng.uniform(80, 160), np.float32)
    margin = RADIUS + 1
    while True:
        angle = np.deg2rad(direction + rng.uniform(-_SPREAD, _SPREAD))
        red = rng.uniform(margin, SIDE - margin, 2)
        blue = red + rng.uniform(*_DISTANCES) * np.array((np.cos(angle), np.sin(angle)))
        if (blue > margin).all() and (blue < SIDE - margin).all():
            break
    for (x, y), color in ((red, _RED), (blue, _BLUE)):
        cv2.circle(image, (round(x * 16), round(y * 16)), RADIUS * 16, color, -1, cv2.LINE_AA, 4)
    image += rng.normal(0, 10, image.shape[:2])[..., None]
    return image.clip(0, 255).astype(np.uint8)
