"""IoU of boxes, and its variants with a gradient where boxes do not overlap (GIoU, DIoU, CIoU).

GIoU: Rezatofighi et al., arXiv:1902.09630; DIoU and CIoU: Zheng et al., arXiv:1911.08287.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

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
