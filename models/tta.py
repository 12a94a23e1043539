"""Test-time augmentation: run a model on scaled and flipped copies of the images and pool the boxes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

VIEWS = ((1.0, False), (0.83, True), (0.67, False))  # scale, flipped left-right
PADDING = 0.447  # ImageNet's mean, close to the grey of letterbox borders, 114/255


def augmented_forward(
    forward: Callable[[Tensor], Tensor], images: Tensor, stride: int, levels: int
) -> Tensor:
    """Run `forward` on every view and map its boxes back to the original images.

    Args:
        forward: returns the decoded output of a batch, (B, N, 5 + nc).
        images: (B, 3, H, W) float 0-1.
        stride: of the coarsest level; heights and widths of all views are multiples of it.
        levels: detection levels.

    Returns:
        (B, N of all views, 5 + nc)
    """
    width = images.shape[3]
    pooled = []
    for scale, flipped in VIEWS:
        decoded = forward(_resize(images.flip(3) if flipped else images, scale, stride))
        boxes = decoded[..., :4] / scale
        if flipped:
            boxes = torch.cat((width - boxes[..., :1], boxes[..., 1:]), -1)
        pooled.append(torch.cat((boxes, decoded[..., 4:]), -1))
    return torch.cat(_clip_levels(pooled, levels), 1)


def _resize(images: Tensor, scale: float, stride: int) -> Tensor:
    """Scale, then pad right and bottom to multiples of `stride`."""
    if scale == 1.0:
        return images
    h, w = images.shape[2:]
    size = (int(h * scale), int(w * scale))
    small = functional.interpolate(images, size, mode="bilinear", align_corners=False)
    right = math.ceil(w * scale / stride) * stride - small.shape[3]
    bottom = math.ceil(h * scale / stride) * stride - small.shape[2]
    return functional.pad(small, (0, right, 0, bottom), value=PADDING)


def _clip_levels(pooled: list[Tensor], levels: int) -> list[Tensor]:
    """Drop the coarsest level of the first, largest view and the finest level of the last, smallest one.

    The number of rows per level goes as 4^(levels - 1), ..., 4, 1.
    """
    parts = sum(4**level for level in range(levels))
    first, last = pooled[0], pooled[-1]
    pooled[0] = first[:, : first.shape[1] - first.shape[1] // parts]
    pooled[-1] = last[:, last.shape[1] // parts * 4 ** (levels - 1) :]
    return pooled
