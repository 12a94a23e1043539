"""How much boxes overlap: IoU for matching, and its kin with a gradient where boxes do not touch.

GIoU: Rezatofighi et al., arXiv:1902.09630; DIoU and CIoU: Zheng et al., arXiv:1911.08287.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

Kind = Literal["iou", "giou", "diou", "ciou"]

_SMALLEST_SIDE = 1e-7  # heights below would overflow the gradient of width / height


class _Corners(NamedTuple):
    """Corners and sides of boxes, each (...)."""

    left: Tensor
    top: Tensor
    right: Tensor
    bottom: Tensor
    width: Tensor
    height: Tensor


def box_iou(a_xyxy: Tensor, b_xyxy: Tensor, eps: float = 1e-7) -> Tensor:
    """Compare every box of `a_xyxy` (n, 4) with every one of `b_xyxy` (m, 4): IoU (n, m)."""
    a, b = _corners(a_xyxy[:, None], xywh=False), _corners(b_xyxy[None], xywh=False)
    inter, union = _areas(a, b, eps)
    return inter / union


def bbox_iou(box1: Tensor, box2: Tensor, xywh: bool = True, kind: Kind = "iou", eps: float = 1e-7) -> Tensor:
    """Compare boxes pair by pair: (..., 4) and (..., 4), broadcast, give (...).

    Args:
        box1: the boxes that are to move (predictions).
        box2: the boxes they are compared with.
        xywh: boxes are centre and size; otherwise corners.
        kind: plain IoU, or minus the penalty for empty enclosing area (giou), for distance of the
            centres (diou), or for distance and different aspect (ciou).
        eps: keeps the divisions finite for empty boxes.
    """
    a, b = _corners(box1, xywh, eps), _corners(box2, xywh, eps)
    inter, union = _areas(a, b, eps)
    iou = inter / union
    if kind == "iou":
        return iou
    around_w = a.right.maximum(b.right) - a.left.minimum(b.left)
    around_h = a.bottom.maximum(b.bottom) - a.top.minimum(b.top)
    if kind == "giou":
        around = around_w * around_h + eps
        return iou - (around - union) / around
    distance = _centre_distance(a, b) / (around_w**2 + around_h**2 + eps)
    if kind == "diou":
        return iou - distance
    aspect = (_angle(b) - _angle(a)) ** 2 * (4 / math.pi**2)
    with torch.no_grad():  # the weight of the aspect term is a constant to the gradient
        weight = aspect / (1 - iou + aspect + eps)
    return iou - (distance + aspect * weight)


def box_ioa(a_xyxy: np.ndarray, b_xyxy: np.ndarray, eps: float = 1e-7) -> np.ndarray:
    """Say which share of each box of `b_xyxy` (m, 4) every box of `a_xyxy` (n, 4) covers: (n, m), numpy."""
    a, b = a_xyxy[:, None], b_xyxy[None]
    sides = np.minimum(a[..., 2:4], b[..., 2:4]) - np.maximum(a[..., :2], b[..., :2])
    return sides.clip(0).prod(-1) / ((b[..., 2:4] - b[..., :2]).prod(-1) + eps)


def _corners(boxes: Tensor, xywh: bool, eps: float = 0.0) -> _Corners:
    if not xywh:
        left, top, right, bottom = boxes[..., :4].unbind(-1)
        # Only heights get eps: it shows in boxes without size alone, where the original's figures have it.
        return _Corners(left, top, right, bottom, right - left, bottom - top + eps)
    x, y, width, height = boxes[..., :4].unbind(-1)
    half_w, half_h = width / 2, height / 2
    return _Corners(x - half_w, y - half_h, x + half_w, y + half_h, width, height)


def _areas(a: _Corners, b: _Corners, eps: float) -> tuple[Tensor, Tensor]:
    """Intersection and union."""
    overlap_w = (a.right.minimum(b.right) - a.left.maximum(b.left)).clamp(0)
    overlap_h = (a.bottom.minimum(b.bottom) - a.top.maximum(b.top)).clamp(0)
    inter = overlap_w * overlap_h
    return inter, a.width * a.height + b.width * b.height - inter + eps


def _centre_distance(a: _Corners, b: _Corners) -> Tensor:
    """Squared distance of the centres."""
    dx = b.left + b.right - a.left - a.right
    dy = b.top + b.bottom - a.top - a.bottom
    return (dx**2 + dy**2) / 4


def _angle(box: _Corners) -> Tensor:
    """Aspect as an angle; a box without any size counts as flat instead of giving NaN."""
    return torch.atan(box.width / box.height.clamp(min=_SMALLEST_SIDE))
