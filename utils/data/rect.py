"""Rectangular batches: pictures of like shape go together, so that little is padded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class RectPlan:
    """Which picture goes into which batch, and how large each batch is."""

    order: np.ndarray  # (N,) int: the pictures from wide to tall
    batch: np.ndarray  # (N,) int: batch of each, in that order
    shapes: np.ndarray  # (batches, 2) int: height, width


def plan_rect(sizes_wh: np.ndarray, batch_size: int, imgsz: int, stride: int, pad: float) -> RectPlan:
    """Sort pictures by shape and find the least rectangle for each batch.

    Args:
        sizes_wh: (N, 2) width and height of the pictures.
        batch_size: pictures in a batch.
        imgsz: longer side of the rectangle before rounding, pixels.
        stride: sides become multiples of it.
        pad: strides to add on each side before rounding up; 0.5 is what validation has always had.
    """
    tallness = sizes_wh[:, 1] / sizes_wh[:, 0]
    order = tallness.argsort(kind="stable")
    batch = np.arange(len(order)) // batch_size
    starts = np.arange(0, len(order), batch_size)
    widest = np.minimum.reduceat(tallness[order], starts)
    tallest = np.maximum.reduceat(tallness[order], starts)
    # Fractions of imgsz: a batch of wide pictures is as high as the tallest of them needs, and vice versa.
    sides = np.stack((np.minimum(tallest, 1), np.minimum(1 / widest, 1)), 1)
    return RectPlan(order, batch, np.ceil(sides * imgsz / stride + pad).astype(int) * stride)
