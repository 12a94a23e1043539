"""Boxes and polygons: formats, clipping, scaling to the original image, and IoU.

Every function takes numpy arrays or torch tensors unless its signature says otherwise. Boxes are rows
of at least four numbers; columns after the fourth (confidence, class) pass through untouched.

GIoU: Rezatofighi et al., arXiv:1902.09630; DIoU and CIoU: Zheng et al., arXiv:1911.08287.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

Boxes = TypeVar("Boxes", np.ndarray, Tensor)
RatioPad = tuple[Sequence[float], Sequence[float]]  # ((gain_h, gain_w), (pad_x, pad_y))


def xywh2xyxy(xywh: Boxes) -> Boxes:
    """Convert centre and size (..., 4+) to corners."""
    centre, half = xywh[..., :2], xywh[..., 2:4] / 2
    return _columns(centre - half, centre + half, xywh[..., 4:])


def xyxy2xywh(xyxy: Boxes) -> Boxes:
    """Convert corners (..., 4+) to centre and size."""
    first, last = xyxy[..., :2], xyxy[..., 2:4]
    return _columns((first + last) / 2, last - first, xyxy[..., 4:])


def xywhn2xyxy(xywhn: Boxes, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0) -> Boxes:
    """Convert fractions of a w x h image to corners in pixels, shifted by the padding."""
    size, pad = _pair(xywhn, w, h), _pair(xywhn, padw, padh)
    centre, half = xywhn[..., :2] * size + pad, xywhn[..., 2:4] * size / 2
    return _columns(centre - half, centre + half, xywhn[..., 4:])


def xyxy2xywhn(xyxy: Boxes, w: float = 640, h: float = 640, clip: bool = False, eps: float = 0.0) -> Boxes:
    """Convert corners in pixels to fractions of a w x h image; `clip` limits them to (w - eps, h - eps)."""
    if clip:
        xyxy = clip_boxes(_copy(xyxy), (h - eps, w - eps))
    xywh, size = xyxy2xywh(xyxy), _pair(xyxy, w, h)
    return _columns(xywh[..., :2] / size, xywh[..., 2:4] / size, xywh[..., 4:])


def clip_boxes(boxes_xyxy: Boxes, shape_hw: Sequence[float]) -> Boxes:
    """Clip corners to an image of `shape_hw`, in place, and return the boxes."""
    height, width = shape_hw[0], shape_hw[1]
    if isinstance(boxes_xyxy, np.ndarray) and boxes_xyxy.dtype.kind == "f":  # one call is faster than four
        corners, limits = boxes_xyxy[..., :4], np.array((width, height, width, height), boxes_xyxy.dtype)
        corners.clip(0, limits, out=corners)
        return boxes_xyxy
    for column, limit in enumerate((width, height, width, height)):
        boxes_xyxy[..., column] = boxes_xyxy[..., column].clip(0, limit)
    return boxes_xyxy


def scale_boxes(
    input_hw: Sequence[float],
    boxes_xyxy: Boxes,
    image_hw: Sequence[float],
    ratio_pad: RatioPad | None = None,
) -> Boxes:
    """Scale boxes from the letterboxed input to the original image and clip them, in place.

    Args:
        input_hw: (height, width) of the network's input.
        boxes_xyxy: (..., 4+) corners in pixels of that input.
        image_hw: (height, width) of the original image.
        ratio_pad: gain and padding that the letterbox recorded; by default computed from the two shapes.
            The first gain is used for both axes, as in the original.
    """
    gain, (pad_x, pad_y) = _gain_and_pad(input_hw, image_hw, ratio_pad)
    boxes_xyxy[..., 0:4:2] -= pad_x
    boxes_xyxy[..., 1:4:2] -= pad_y
    boxes_xyxy[..., :4] /= gain
    return clip_boxes(boxes_xyxy, image_hw)


def xyn2xy(
    points: np.ndarray, w: float = 640, h: float = 640, padw: float = 0, padh: float = 0
) -> np.ndarray:
    """Convert polygon points (..., 2) from fractions of a w x h image to pixels, shifted by the padding."""
    return points * _pair(points, w, h) + _pair(points, padw, padh)


def segment2box(segment: np.ndarray, width: float = 640, height: float = 640) -> np.ndarray:
    """Return the box xyxy (4,) around those points (n, 2) of a polygon that are in the image, or zeros."""
    inside = segment[((segment >= 0) & (segment <= (width, height))).all(1)]
    if len(inside) == 0:
        return np.zeros(4, segment.dtype)
    return np.concatenate((inside.min(0), inside.max(0)))


def segments2boxes(segments: Sequence[np.ndarray]) -> np.ndarray:
    """Return the boxes around polygons (n_i, 2): xywh (len(segments), 4) in the unit of the polygons."""
    if len(segments) == 0:
        return np.zeros((0, 4), np.float32)
    return xyxy2xywh(np.stack([np.concatenate((points.min(0), points.max(0))) for points in segments]))


def resample_segments(segments: Sequence[np.ndarray], n: int = 1000) -> list[np.ndarray]:
    """Resample each closed polygon at `n` points, evenly spaced in vertex number: (n, 2) float32 each."""
    return [_resample(points, n) for points in segments]


def scale_segments(
    input_hw: Sequence[float],
    segment: np.ndarray,
    image_hw: Sequence[float],
    ratio_pad: RatioPad | None = None,
    normalize: bool = False,
) -> np.ndarray:
    """Scale polygon points (n, 2) from the input to the image and clip them; fractions if `normalize`."""
    gain, pad = _gain_and_pad(input_hw, image_hw, ratio_pad)
    size = (image_hw[1], image_hw[0])
    points = ((segment - _pair(segment, *pad)) / gain).clip(0, size)
    return points / _pair(segment, *size) if normalize else points


def _resample(points: np.ndarray, n: int) -> np.ndarray:
    closed = np.concatenate((points, points[:1]))
    steps, vertices = np.linspace(0, len(points), n), np.arange(len(closed))
    return np.stack([np.interp(steps, vertices, closed[:, axis]) for axis in (0, 1)], 1).astype(np.float32)


def _gain_and_pad(
    input_hw: Sequence[float], image_hw: Sequence[float], ratio_pad: RatioPad | None
) -> tuple[float, tuple[float, float]]:
    if ratio_pad is not None:
        return ratio_pad[0][0], (ratio_pad[1][0], ratio_pad[1][1])
    gain = min(input_hw[0] / image_hw[0], input_hw[1] / image_hw[1])
    return gain, ((input_hw[1] - image_hw[1] * gain) / 2, (input_hw[0] - image_hw[0] * gain) / 2)


def _columns(*parts: Boxes) -> Boxes:
    first = parts[0]
    return torch.cat(parts, -1) if isinstance(first, Tensor) else np.concatenate(parts, -1)


def _pair(like: Boxes, x: float, y: float) -> Boxes:
    """Return (x, y) as an array or tensor like `like`, of its floating point type."""
    if isinstance(like, Tensor):
        return like.new_tensor((x, y), dtype=like.dtype if like.is_floating_point() else torch.float32)
    return np.array((x, y), like.dtype if np.issubdtype(like.dtype, np.floating) else np.float32)


def _copy(boxes: Boxes) -> Boxes:
    return boxes.clone() if isinstance(boxes, Tensor) else boxes.copy()


Kind = Literal["iou", "giou", "diou", "ciou"]

_SMALLEST_SIDE = 1e-7  # smaller heights would overflow the gradient of width / height


class _Corners(NamedTuple):
    """Corners and sides of boxes, each (...)."""

    left: Tensor
    top: Tensor
    right: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor, eps: float = 1e-7) -> Tensor:
    """Compute the IoU (n, m) of every box of `a_xyxy` (n, 4) with every box of `b_xyxy` (m, 4)."""
    a, b = _corners(a_xyxy[:, None], xywh=False), _corners(b_xyxy[None], xywh=False)
    inter, union = _areas(a, b, eps)
    return inter / union


def bbox_iou(box1: Tensor, box2: Tensor, xywh: bool = True, kind: Kind = "iou", eps: float = 1e-7) -> Tensor:
    """Compute the IoU of pairs of boxes: (..., 4) and (..., 4), broadcast, give (...).

    Args:
        box1: predicted boxes.
        box2: true boxes.
        xywh: boxes are centre and size; otherwise corners.
        kind: plain IoU, or IoU minus a penalty: for the empty part of the enclosing box (giou), for the
            distance of the centres (diou), or for distance and different aspect ratio (ciou).
        eps: keeps the divisions finite for empty boxes.
    """
    a, b = _corners(box1, xywh, eps), _corners(box2, xywh, eps)
    inter, union = _areas(a, b, eps)
    iou = inter / union
    if kind == "iou":
        return iou
    enclosing_w = a.right.maximum(b.right) - a.left.minimum(b.left)
    enclosing_h = a.bottom.maximum(b.bottom) - a.top.minimum(b.top)
    if kind == "giou":
        enclosing = enclosing_w * enclosing_h + eps
        return iou - (enclosing - union) / enclosing
    distance = _centre_distance(a, b) / (enclosing_w**2 + enclosing_h**2 + eps)
    if kind == "diou":
        return iou - distance
    aspect = (_angle(b) - _angle(a)) ** 2 * (4 / math.pi**2)
    with torch.no_grad():  # the weight of the aspect term has no gradient
        weight = aspect / (1 - iou + aspect + eps)
    return iou - (distance + aspect * weight)


def box_ioa(a_xyxy: np.ndarray, b_xyxy: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """Compute the fraction (n, m) of each box of `b_xyxy` (m, 4) that each box of `a_xyxy` (n, 4) covers."""
    a, b = a_xyxy[:, None], b_xyxy[None]
    sides = np.minimum(a[..., 2:4], b[..., 2:4]) - np.maximum(a[..., :2], b[..., :2])
    return sides.clip(0).prod(-1) / ((b[..., 2:4] - b[..., :2]).prod(-1) + eps)


def _corners(boxes: Tensor, xywh: bool, eps: float = 0.0) -> _Corners:
    if not xywh:
        left, top, right, bottom = boxes[..., :4].unbind(-1)
        # As in the original, only heights get eps, which matters for empty boxes alone.
        return _Corners(left, top, right, bottom, right - left, bottom - top + eps)
    x, y, width, height = boxes[..., :4].unbind(-1)
    half_w, half_h = width / 2, height / 2
    return _Corners(x - half_w, y - half_h, x + half_w, y + half_h, width, height)


def _areas(a: _Corners, b: _Corners, eps: float) -> tuple[Tensor, Tensor]:
    """Return intersection and union."""
    overlap_w = (a.right.minimum(b.right) - a.left.maximum(b.left)).clamp(0)
    overlap_h = (a.bottom.minimum(b.bottom) - a.top.maximum(b.top)).clamp(0)
    inter = overlap_w * overlap_h
    return inter, a.width * a.height + b.width * b.height - inter + eps


def _centre_distance(a: _Corners, b: _Corners) -> Tensor:
    """Return the squared distance of the centres."""
    dx = b.left + b.right - a.left - a.right
    dy = b.top + b.bottom - a.top - a.bottom
    return (dx**2 + dy**2) / 4


def _angle(box: _Corners) -> Tensor:
    """Return the aspect ratio as an angle; a box of size 0 has angle 0 instead of NaN."""
    return torch.atan(box.width / box.height.clamp(min=_SMALLEST_SIDE))
