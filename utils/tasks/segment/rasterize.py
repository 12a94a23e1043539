"""True masks of a training or validation image, drawn from its polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

_MAX_BYTE = 255  # objects that fit into a map of bytes


class MaskPart(NamedTuple):
    """The part of a small mask that may have pixels: its top left corner, and the pixels (h, w) bool."""

    row: int
    column: int
    pixels: np.ndarray


@dataclass(frozen=True)
class MaskFormat:
    """How a sample holds its masks.

    Attributes:
        ratio: the input is this many times as large as the masks.
        overlap: one map per image, where small objects cover large ones; else a mask for each object.
        least: a pixel of a small mask is set from this fraction of its (up to four) sampled pixels on.
            0.5 for training; 0.51, more than half, where YOLOv5's validation shrinks full-size masks.
    """

    ratio: int = 4
    overlap: bool = True
    least: float = 0.5

    def draw(self, polygons: Sequence[np.ndarray], shape_hw: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """Draw the masks of an image.

        Args:
            polygons: n polygons (k, 2) in pixels of the image.
            shape_hw: height and width of the image.

        Returns:
            The masks: with `overlap` (1, h, w), where the value i + 1 belongs to object order[i]; else
            (n, h, w) uint8. And `order` (n,), in which the labels have to follow.
        """
        height, width = shape_hw
        size = height // self.ratio, width // self.ratio
        parts = [draw_polygon(points, (height, width), self.ratio, self.least) for points in polygons]
        return _pack(parts, size) if self.overlap else (_stack(parts, size), np.arange(len(parts)))


def draw_polygon(
    points: np.ndarray, shape_hw: tuple[int, int], ratio: int = 1, least: float = 0.5
) -> MaskPart:
    """Fill a polygon (k, 2) in an image, and shrink it by `ratio`.

    Vertices are truncated to whole pixels, and edges belong to the mask, as in the original. Only the
    surroundings of the polygon are drawn.
    """
    height, width = shape_hw
    corners = points.astype(np.int32)
    empty = MaskPart(0, 0, np.zeros((0, 0), bool))
    if not len(corners):
        return empty
    if height % ratio or width % ratio:  # pixels of the small mask are no whole blocks of large ones
        left, top, right, bottom = 0, 0, width, height
        size = width // ratio, height // ratio
    else:
        left, top = (corners.min(0).clip(0) // ratio * ratio).tolist()
        right, bottom = np.minimum(-(-(corners.max(0) + 1) // ratio) * ratio, (width, height)).tolist()
        if right <= left or bottom <= top:
            return empty
        size = (right - left) // ratio, (bottom - top) // ratio
    canvas: np.ndarray = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillPoly(canvas, [corners - (left, top)], 1)
    if ratio > 1:
        if least == 0.5:
            canvas = cv2.resize(canvas, size)  # rounds one half up
        else:
            canvas = cv2.resize(canvas.astype(np.float32), size) >= least
    return MaskPart(top // ratio, left // ratio, canvas.astype(bool))


def _pack(parts: Sequence[MaskPart], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Paint the objects into one map from large to small; those without pixels are first in the order."""
    areas = np.array([int(part.pixels.sum()) for part in parts], np.int64)
    order = np.argsort(np.where(areas == 0, -np.inf, -areas.astype(float)), kind="stable")
    packed = np.zeros((1, *size), np.uint8 if len(parts) <= _MAX_BYTE else np.int32)
    for value, index in enumerate(order.tolist(), 1):
        row, column, pixels = parts[index]
        h, w = pixels.shape
        packed[0, row : row + h, column : column + w][pixels] = value
    return packed, order


def _stack(parts: Sequence[MaskPart], size: tuple[int, int]) -> np.ndarray:
    masks = np.zeros((len(parts), *size), np.uint8)
    for mask, (row, column, pixels) in zip(masks, parts, strict=True):
        h, w = pixels.shape
        mask[row : row + h, column : column + w] = pixels
    return masks
