"""Test-time augmentation: the model sees an image at several scales and mirrored, boxes are pooled."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from models.yolo import DetectionModel

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # scale, mirrored left-right
PADDING = 0.447  # the mean of ImageNet, close to the letterbox grey 114/255


def augmented_forward(model: DetectionModel, images: Tensor) -> Tensor:
    """Decode every view and undo its scale and mirror.

    Shape:
        (B, 3, H, W) -> (B, N over all views, 5 + nc)
    """
    _, _, height, width = images.shape
    stride = int(model.stride.max())
    pooled = []
    for scale, mirrored in VIEWS:
        view = _resize(images.flip(3) if mirrored else images, scale, stride)
        decoded = model.run_layers(view)[0]
        boxes = decoded[..., :4] / scale
        if mirrored:
            boxes = torch.cat((width - boxes[..., :1], boxes[..., 1:]), -1)
        pooled.append(torch.cat((boxes, decoded[..., 4:]), -1))
    return torch.cat(_without_tails(pooled, model.head.nl), 1)


def _resize(images: Tensor, scale: float, stride: int) -> Tensor:
    """Scale, then pad right and below to whole cells."""
    if scale == 1.0:
        return images
    h, w = images.shape[2:]
    size = (int(h * scale), int(w * scale))
    small = functional.interpolate(images, size, mode="bilinear", align_corners=False)
    right = math.ceil(w * scale / stride) * stride - small.shape[3]
    below = math.ceil(h * scale / stride) * stride - small.shape[2]
    return functional.pad(small, (0, right, 0, below), value=PADDING)


def _without_tails(pooled: list[Tensor], levels: int) -> list[Tensor]:
    """Drop the coarsest level of the largest view and the finest level of the smallest.

    The levels hold 4^(levels-1), ..., 4, 1 parts of the rows.
    """
    parts = sum(4**level for level in range(levels))
    first, last = pooled[0], pooled[-1]
    pooled[0] = first[:, : first.shape[1] - first.shape[1] // parts]
    pooled[-1] = last[:, last.shape[1] // parts * 4 ** (levels - 1) :]
    return pooled
