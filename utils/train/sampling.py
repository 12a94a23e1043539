"""Show images of classes that are rare, or not yet found, more often (--image-weights)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def class_weights(labels: Sequence[np.ndarray], nc: int) -> np.ndarray:
    """Inverse frequency of each class, (nc,) with sum 1; a class without labels counts as one label.

    Args:
        labels: per image (n, 5), class first.
        nc: classes.
    """
    classes = [rows[:, 0].astype(int) for rows in labels]
    counts = np.bincount(np.concatenate([np.zeros(0, int), *classes]), minlength=nc)
    inverse = 1 / np.maximum(counts, 1)
    return inverse / inverse.sum()


def image_weights(labels: Sequence[np.ndarray], nc: int, maps: np.ndarray | None = None) -> np.ndarray:
    """Weight of each image, (N,): the sum over its objects of how rare and how hard their class is.

    Args:
        labels: per image (n, 5), class first.
        nc: classes.
        maps: mAP50-95 of each class at the latest validation, (nc,); None before the first.
    """
    weights = class_weights(labels, nc)
    if maps is not None:
        weights = weights * (1 - maps) ** 2
    return np.array([weights[rows[:, 0].astype(int)].sum() for rows in labels])
