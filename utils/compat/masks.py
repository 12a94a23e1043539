"""YOLOv5's `utils.segment.general`: masks from prototypes and coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from utils.tasks.segment import masks


def process_mask(
    protos: Tensor, masks_in: Tensor, bboxes: Tensor, shape: Sequence[int], upsample: bool = False
) -> Tensor:
    """Return masks (n, mh, mw) of 0 and 1, or (n, h, w) with `upsample`; see `utils.tasks.segment.masks`."""
    return masks.process_mask(protos, masks_in, bboxes, shape, upsample).to(protos.dtype)


def process_mask_upsample(protos: Tensor, masks_in: Tensor, bboxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Return masks (n, h, w): resized to the input first, then cut to their boxes."""
    return masks.process_mask_upsample(protos, masks_in, bboxes, shape).to(protos.dtype)


def process_mask_native(protos: Tensor, masks_in: Tensor, bboxes: Tensor, shape: Sequence[int]) -> Tensor:
    """Return masks (n, h, w) of the original image of `shape`, for boxes in its pixels."""
    return masks.process_mask_native(protos, masks_in, bboxes, shape).to(protos.dtype)


def scale_image(
    im1_shape: Sequence[float], masks: np.ndarray, im0_shape: Sequence[int], ratio_pad: Any = None
) -> np.ndarray:
    """Resize masks (h, w, n) of a letterboxed input of `im1_shape` to the image, without the padding."""
    if ratio_pad is None:
        gain = min(im1_shape[0] / im0_shape[0], im1_shape[1] / im0_shape[1])
        pad_x, pad_y = (im1_shape[1] - im0_shape[1] * gain) / 2, (im1_shape[0] - im0_shape[0] * gain) / 2
    else:
        pad_x, pad_y = ratio_pad[1]
    inside = masks[int(pad_y) : int(im1_shape[0] - pad_y), int(pad_x) : int(im1_shape[1] - pad_x)]
    resized = cv2.resize(inside, (int(im0_shape[1]), int(im0_shape[0])))
    return resized[..., None] if resized.ndim == 2 else resized


def masks_iou(mask1: Tensor, mask2: Tensor, eps: float = 1e-7) -> Tensor:
    """Return the IoU (n,) of pairs of masks (n, pixels)."""
    inter = (mask1 * mask2).sum(1).clamp(0)
    return inter / (mask1.sum(1) + mask2.sum(1) - inter + eps)


def masks2segments(masks: Any, strategy: str = "largest") -> list[np.ndarray]:
    """Return the polygon (k, 2) float32 of each mask (n, h, w): of its largest part, or of all (`concat`)."""
    polygons = []
    for mask in masks.int().cpu().numpy().astype(np.uint8):
        parts = list(cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0])
        if not parts:
            points = np.zeros((0, 2))
        elif strategy == "concat":
            points = np.concatenate([part.reshape(-1, 2) for part in parts])
        else:
            points = max(parts, key=lambda part: (len(part), cv2.contourArea(part))).reshape(-1, 2)
        polygons.append(points.astype(np.float32))
    return polygons


def blend_masks(image: np.ndarray, masks: Any, colors: Any, im_gpu: Any = None, alpha: float = 0.5) -> None:
    """Blend masks (n, h, w) into an image (H, W, 3) BGR in place, each in its colour (RGB).

    Args:
        image: the image.
        masks: tensor or array; with `im_gpu` at the size of the letterboxed input.
        colors: n colours (r, g, b).
        im_gpu: (3, h, w) the letterboxed input, which says that the padding must be removed.
        alpha: opacity.
    """
    if not len(masks):
        return
    stack = (
        masks.detach().float().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks, np.float32)
    )
    planes = np.ascontiguousarray(stack.transpose(1, 2, 0))
    if im_gpu is not None:
        planes = scale_image(planes.shape[:2], planes, image.shape)
    blended: np.ndarray = image.astype(np.float32)
    for index, color in enumerate(colors):
        plane = planes[..., index]
        if plane.shape != image.shape[:2]:
            plane = cv2.resize(plane, (image.shape[1], image.shape[0]))
        opacity = alpha * plane[..., None].clip(0, 1)
        blended = blended * (1 - opacity) + np.array(color[::-1], np.float32) * opacity
    image[:] = blended.round().clip(0, 255).astype(np.uint8)
