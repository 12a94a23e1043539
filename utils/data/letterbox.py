"""Letterbox images to the input size of a network, and convert them to a tensor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import overload

import cv2
import numpy as np
import torch

from utils.base.errors import ConfigError
from utils.base.log import LOG

GRAY = (114, 114, 114)


def letterbox(
    image: np.ndarray,
    new_shape: int | Sequence[int] = 640,
    color: tuple[int, int, int] = GRAY,
    auto: bool = True,
    scale_fill: bool = False,
    scaleup: bool = True,
    stride: int = 32,
) -> tuple[np.ndarray, tuple[float, float], tuple[float, float]]:
    """Resize an image (H, W, 3) to fit into `new_shape`, keeping its aspect ratio, and pad it.

    Args:
        image: uint8 pixels.
        new_shape: (height, width) of the result, or the side of a square.
        color: padding colour.
        auto: pad only to the next multiple of `stride`, not to all of `new_shape`.
        scale_fill: stretch to `new_shape` instead of padding (only without `auto`).
        scaleup: enlarge small images; otherwise they are only padded.
        stride: see `auto`.

    Returns:
        The image; the ratios (w, h) of new to old size; the padding (left, top) as exact floats. Of an odd
        number of padding pixels, the extra one is at the right and at the bottom.
    """
    height, width = image.shape[:2]
    target_h, target_w = (new_shape, new_shape) if isinstance(new_shape, int) else new_shape
    ratio = min(target_h / height, target_w / width)
    if not scaleup:
        ratio = min(ratio, 1.0)
    ratios = ratio, ratio
    # at least one pixel, for very long and thin images
    inner_w, inner_h = max(round(width * ratio), 1), max(round(height * ratio), 1)
    free_w, free_h = target_w - inner_w, target_h - inner_h
    if auto:
        free_w, free_h = free_w % stride, free_h % stride
    elif scale_fill:
        ratios = target_w / width, target_h / height
        (inner_w, inner_h), free_w, free_h = (target_w, target_h), 0, 0
    pad = free_w / 2, free_h / 2
    if (width, height) != (inner_w, inner_h):
        image = cv2.resize(image, (inner_w, inner_h), interpolation=cv2.INTER_LINEAR)
    if free_w or free_h:
        (left, right), (top, bottom) = _sides(pad[0]), _sides(pad[1])
        image = cv2.copyMakeBorder(image, top, bottom, left, right, cv2.BORDER_CONSTANT, value=color)
    return image, ratios, pad


@overload
def check_img_size(imgsz: int, stride: int = 32, floor: int = 0) -> int: ...


@overload
def check_img_size(imgsz: Sequence[int], stride: int = 32, floor: int = 0) -> list[int]: ...


def check_img_size(imgsz: int | Sequence[int], stride: int = 32, floor: int = 0) -> int | list[int]:
    """Round an image size (or height and width) up to a multiple of `stride`, at least `floor`.

    Raises:
        ConfigError: a size below 1.
    """
    sizes = [imgsz] if isinstance(imgsz, int) else [int(side) for side in imgsz]
    if not sizes or min(sizes) < 1:
        raise ConfigError(f"--img-size {imgsz}: expected at least 1 pixel")
    rounded = [max(-(-side // stride) * stride, floor) for side in sizes]
    result = rounded[0] if isinstance(imgsz, int) else rounded
    if rounded != sizes:
        least = f", at least {floor}" if floor else ""
        LOG.warning(f"--img-size {imgsz}: using {result}, as sizes are multiples of {stride}{least}")
    return result


def _sides(half: float) -> tuple[int, int]:
    """Return the whole pixels of padding before and after the image."""
    return round(half - 0.1), round(half + 0.1)


def to_tensor(
    arrays: Sequence[np.ndarray], device: torch.device, half: bool = False, *, rgb: bool = False
) -> torch.Tensor:
    """Stack B images (H, W, 3) uint8 to a tensor (B, 3, H, W) RGB in 0-1, in channels-last memory.

    Every value is x / 255 in the precision of the result. On the CPU bytes are converted in one pass; for
    other devices the bytes are copied and converted there, as they are a quarter of the floats.

    Args:
        arrays: images of one shape.
        device: device of the result.
        half: FP16, else FP32.
        rgb: the images are RGB; else BGR, as OpenCV reads them.
    """
    shape = len(arrays), *arrays[0].shape
    if device.type == "cpu":
        floats = np.empty(shape, np.float32)
        for array, target in zip(arrays, floats, strict=True):
            array = array if rgb else cv2.cvtColor(array, cv2.COLOR_BGR2RGB)
            np.divide(array, np.float32(255), out=target, dtype=np.float32)
        images = torch.from_numpy(floats).permute(0, 3, 1, 2)
        return images.half() if half else images
    levels = np.empty(shape, np.uint8)
    for array, target in zip(arrays, levels, strict=True):
        if rgb:
            target[:] = array
        else:
            cv2.cvtColor(array, cv2.COLOR_BGR2RGB, dst=target)
    images = torch.from_numpy(levels).to(device).permute(0, 3, 1, 2)
    if device.type != "cuda":
        images = images.contiguous()
    return images.to(torch.float16 if half else torch.float32) / 255


def prepare_image(image: np.ndarray, size_hw: tuple[int, int]) -> torch.Tensor:
    """Letterbox an image (H, W, 3) uint8 BGR for a detector: (1, 3, h, w) RGB in 0-1, on the CPU."""
    return to_tensor([letterbox(image, size_hw, auto=False)[0]], torch.device("cpu"))
