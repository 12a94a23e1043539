"""Masks of detections: from prototypes and coefficients, at the size of the prototypes, input or image.

Many masks are processed in blocks, so that memory is bounded. `shape` is always (height, width).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CHANNELS = 128  # that OpenCV resizes at a time
_BAND = 32  # boxes that `mask_overlaps` compares at a time
BLOCK_PIXELS = 1 << 22  # of float32 masks that are made at a time: 16 MB; more is slower


def crop_mask(masks: Tensor, boxes: Tensor) -> Tensor:
    """Set masks (n, h, w) to 0 outside of their boxes (n, 4+) xyxy: kept are x1 <= column < x2, y alike."""
    return masks * inside_boxes(boxes, masks.shape[1:])


def inside_boxes(boxes: Tensor, shape: Sequence[int], corner: Sequence[int] = (0, 0)) -> Tensor:
    """Return which pixels of a part of the image are inside of boxes (n, 4+) xyxy: (n, h, w) bool.

    Args:
        boxes: of whole objects.
        shape: of the part.
        corner: row and column at which it starts.
    """
    x1, y1, x2, y2 = (column[:, None, None] for column in boxes[:, :4].T)
    row, column = corner
    x = torch.arange(column, column + shape[1], device=boxes.device)[None, None]
    y = torch.arange(row, row + shape[0], device=boxes.device)[None, :, None]
    return ((x >= x1) & (x < x2)) & ((y >= y1) & (y < y2))  # rows and columns first: one pass over (n, h, w)


def process_mask(
    protos: Tensor, coefficients: Tensor, boxes: Tensor, shape: Sequence[int], upsample: bool = False
) -> Tensor:
    """Return the masks of one image, cropped to their boxes at the size of the prototypes, as YOLOv5 does.

    Args:
        protos: (nm, h, w) prototypes.
        coefficients: (n, nm), times objectness, as NMS returns them.
        boxes: (n, 4+) xyxy in pixels of the network's input.
        shape: of the network's input.
        upsample: resize the masks to the input.

    Returns:
        (n, h, w), or (n, *shape) with `upsample`, bool.
    """
    boxes = _on_protos(boxes, protos, shape)

    def make(rows: slice) -> Tensor:
        masks = _combine(protos, coefficients[rows])
        if not upsample:
            return (masks > 0.5) & inside_boxes(boxes[rows], masks.shape[1:])
        return _resize(crop_mask(masks, boxes[rows]), shape) > 0.5

    return _in_blocks(make, len(coefficients), shape if upsample else protos.shape[1:], protos.device)


def process_mask_upsample(
    protos: Tensor, coefficients: Tensor, boxes: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return masks as `process_mask` with `upsample`, cropped after they are enlarged: without steps."""

    def make(rows: slice) -> Tensor:
        masks = _resize(_combine(protos, coefficients[rows]), shape)
        return (masks > 0.5) & inside_boxes(boxes[rows], shape)

    return _in_blocks(make, len(coefficients), shape, protos.device)


def process_mask_native(protos: Tensor, coefficients: Tensor, boxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Return masks (n, *shape) bool at the size of the original image.

    Args:
        protos: (nm, h, w) prototypes of the letterboxed image.
        coefficients: (n, nm).
        boxes: (n, 4+) xyxy in pixels of the original image.
        shape: of the original image.
    """
    rows, columns = unpadded(protos.shape[1:], shape)

    def make(part: slice) -> Tensor:
        inside = _combine(protos[:, rows, columns], coefficients[part])
        return (_resize(inside, shape) > 0.5) & inside_boxes(boxes[part], shape)

    return _in_blocks(make, len(coefficients), shape, protos.device)


def scale_masks(
    masks: Tensor | np.ndarray, shape: Sequence[int], pad_xy: tuple[float, float] | None = None
) -> np.ndarray:
    """Resize masks (n, h, w) of a letterboxed input to the original image: (n, *shape) uint8 of 0 and 1.

    Args:
        masks: 0 and 1, or bool.
        shape: of the original image.
        pad_xy: padding on the left and on top; None: that of a centred letterbox.
    """
    rows, columns = unpadded(masks.shape[1:], shape, pad_xy)
    inside = masks[:, rows, columns]
    pixels = inside.cpu().numpy() if isinstance(inside, Tensor) else inside
    pixels = pixels.astype(np.uint8)
    height, width = int(shape[0]), int(shape[1])
    scaled = np.zeros((len(masks), height, width), np.uint8)
    for start in range(0, len(masks), CHANNELS):
        part = np.ascontiguousarray(pixels[start : start + CHANNELS].transpose(1, 2, 0))
        resized = cv2.resize(part, (width, height)).reshape(height, width, -1)
        scaled[start : start + CHANNELS] = resized.transpose(2, 0, 1)
    return scaled


def unpadded(
    inner: Sequence[int], shape: Sequence[int], pad_xy: tuple[float, float] | None = None
) -> tuple[slice, slice]:
    """Return the rows and columns of a letterboxed image of size `inner` that show the image of `shape`."""
    h, w = inner
    if pad_xy is None:
        gain = min(h / shape[0], w / shape[1])
        pad_xy = (w - shape[1] * gain) / 2, (h - shape[0] * gain) / 2
    x, y = pad_xy
    return slice(int(y), max(int(h - y), int(y) + 1)), slice(int(x), max(int(w - x), int(x) + 1))


def mask_iou(a: Tensor, b: Tensor, eps: float = 1e-7) -> Tensor:
    """Return the IoU (n, m) of binary masks (n, pixels) and (m, pixels)."""
    a, b = a.float(), b.float()
    inter = a @ b.T
    return inter / (a.sum(1)[:, None] + b.sum(1)[None] - inter + eps)


def mask_overlaps(
    truth: Tensor, protos: Tensor, coefficients: Tensor, boxes: Tensor, shape: Sequence[int]
) -> Tensor:
    """Return the IoU (m, n) of true masks (m, h, w) with those of `process_mask`, up to rounding.

    The masks are not made as a whole: boxes are sorted from top to bottom, and some at a time need few rows.

    Args:
        truth: (m, h, w) bool, at the size of the prototypes.
        protos: (nm, h, w) prototypes.
        coefficients: (n, nm).
        boxes: (n, 4+) xyxy in pixels of the network's input.
        shape: of the network's input.
    """
    height, width = protos.shape[1:]
    boxes, area = _on_protos(boxes, protos, shape), truth.flatten(1).sum(1)[:, None]
    truth, overlaps = truth.float(), truth.new_zeros(len(truth), len(boxes), dtype=torch.float32)
    if not overlaps.numel():
        return overlaps
    tops, bottoms = boxes[:, 1::2].nan_to_num().clamp(0, height).T
    parts = tops.argsort().split(_BAND)
    ends = torch.stack([torch.stack((tops[part].min(), bottoms[part].max())) for part in parts])
    for part, (top, bottom) in zip(parts, ends.tolist(), strict=True):
        rows = slice(int(top), math.ceil(bottom))
        logits = coefficients[part].float() @ protos[:, rows].float().flatten(1)
        inside = inside_boxes(boxes[part], (max(rows.stop - rows.start, 0), width), (rows.start, 0))
        masks = ((logits > 0) & inside.flatten(1)).float()
        inter = truth[:, rows].flatten(1) @ masks.T
        overlaps[:, part] = inter / (area + masks.sum(1) - inter + 1e-7)
    return overlaps


def _on_protos(boxes: Tensor, protos: Tensor, shape: Sequence[int]) -> Tensor:
    """Return boxes (n, 4+) of the network's input of `shape` in pixels of the prototypes, (n, 4)."""
    h, w = protos.shape[1:]
    return boxes[:, :4] * boxes.new_tensor((w / shape[1], h / shape[0])).repeat(2)


def _combine(protos: Tensor, coefficients: Tensor) -> Tensor:
    """Return probabilities (n, h, w)."""
    c, h, w = protos.shape
    return (coefficients.float() @ protos.float().reshape(c, -1)).sigmoid().view(-1, h, w)


def _resize(masks: Tensor, shape: Sequence[int]) -> Tensor:
    size = int(shape[0]), int(shape[1])
    if tuple(masks.shape[1:]) == size:
        return masks
    return functional.interpolate(masks[None], size, mode="bilinear", align_corners=False)[0]


def blocks(count: int, pixels: int) -> Iterator[slice]:
    """Yield slices of `count` masks of that many pixels each, such that a block fits `BLOCK_PIXELS`."""
    step = max(BLOCK_PIXELS // max(pixels, 1), 1)
    yield from (slice(start, start + step) for start in range(0, count, step))


def _in_blocks(
    make: Callable[[slice], Tensor], count: int, shape: Sequence[int], device: torch.device
) -> Tensor:
    h, w = int(shape[0]), int(shape[1])
    parts = [make(rows) for rows in blocks(count, h * w)]
    if not parts:
        return torch.zeros(0, h, w, dtype=torch.bool, device=device)
    return parts[0] if len(parts) == 1 else torch.cat(parts)
