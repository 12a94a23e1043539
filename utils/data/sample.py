"""One picture with its objects, on its way through the augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Sample:
    """An image with its objects in pixels."""

    image: np.ndarray  # (H, W, 3) uint8 BGR
    boxes: np.ndarray  # (n, 5) float32: class, x1, y1, x2, y2
    # One (k, 2) outline a box, without points where only the box is known; or no entry at all.
    polygons: Sequence[np.ndarray] = field(default_factory=list)


def join_polygons(samples: Sequence[tuple[int, Sequence[np.ndarray]]]) -> list[np.ndarray]:
    """Chain the outlines of several pictures, given as (number of boxes, outlines) of each."""
    if not any(polygons for _, polygons in samples):
        return []
    nothing = np.zeros((0, 2), np.float32)
    joined: list[np.ndarray] = []
    for count, polygons in samples:
        joined += polygons if polygons else [nothing] * count
    return joined
