"""The transforms of classification: centre crop for evaluation, random crop and colours for training."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

# Of ImageNet, RGB in 0-1.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

AREA = (0.08, 1.0)  # fraction of the image that a random crop has (Szegedy et al., arXiv:1409.4842, 6)
ASPECT = (3 / 4, 4 / 3)  # width to height of a random crop
_CROP_TRIES = 10
JITTER, JITTER_PROBABILITY = 0.4, 0.5  # largest change of brightness, contrast and saturation
FLIP_PROBABILITY = 0.5


def center_crop(image: np.ndarray, size: int) -> np.ndarray:
    """Crop the largest square around the centre, and resize it bilinearly.

    Args:
        image: (H, W, 3) uint8.
        size: side of the result, pixels.

    Returns:
        (size, size, 3) uint8, with the channels in the order of `image`.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[top : top + side, left : left + side]
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_LINEAR)


def normalize(images: Tensor) -> Tensor:
    """Subtract the mean of ImageNet from images (B, 3, H, W) in 0-1, and divide by its std; in place."""
    # Numbers that are made on a GPU would make it synchronize.
    mean, std = (
        images.new_tensor(values, device="cpu").view(3, 1, 1).to(images.device, non_blocking=True)
        for values in (MEAN, STD)
    )
    return images.sub_(mean).div_(std)


def denormalize(images: Tensor) -> Tensor:
    """Return images (B, 3, H, W) in 0-1 whose `normalize` is given."""
    mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return images * std + mean


class Crop(NamedTuple):
    """A rectangle of an image, pixels."""

    top: int
    left: int
    height: int
    width: int


def draw_crop(rng: np.random.Generator, height: int, width: int, area: tuple[float, float] = AREA) -> Crop:
    """Draw the crop of torchvision's RandomResizedCrop: random area and aspect ratio, anywhere in the image.

    If ten draws do not fit, it is the centre, with an aspect ratio as close as possible to that of the image.
    """
    low, high = map(math.log, ASPECT)
    for _ in range(_CROP_TRIES):
        pixels, ratio = height * width * rng.uniform(*area), math.exp(rng.uniform(low, high))
        w, h = round(math.sqrt(pixels * ratio)), round(math.sqrt(pixels / ratio))
        if 0 < w <= width and 0 < h <= height:
            return Crop(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    ratio = min(max(width / height, ASPECT[0]), ASPECT[1])
    w, h = min(width, round(height * ratio)), min(height, round(width / ratio))
    return Crop((height - h) // 2, (width - w) // 2, max(h, 1), max(w, 1))


def augment(rng: np.random.Generator, image: np.ndarray, size: int, hyp: dict[str, Any]) -> np.ndarray:
    """Crop an image at random, resize it, flip it, and change its colours.

    Args:
        rng: random generator.
        image: (H, W, 3) uint8 BGR.
        size: side of the result, pixels.
        hyp: least area of a crop (`scale`), probabilities `fliplr` and `flipud`, and `jitter`.

    Returns:
        (size, size, 3) uint8 BGR.
    """
    top, left, height, width = draw_crop(rng, image.shape[0], image.shape[1], (hyp["scale"], AREA[1]))
    part = image[top : top + height, left : left + width]
    made = cv2.resize(part, (size, size), interpolation=cv2.INTER_LINEAR)
    if rng.random() < hyp["fliplr"]:
        made = cv2.flip(made, 1)
    if rng.random() < hyp["flipud"]:
        made = cv2.flip(made, 0)
    return jitter_colors(rng, made, hyp["jitter"])


def jitter_colors(rng: np.random.Generator, image: np.ndarray, strength: float) -> np.ndarray:
    """Change brightness, contrast and saturation (H, W, 3) by random factors in random order; or nothing."""
    if rng.random() >= JITTER_PROBABILITY or strength == 0:
        return image
    factors = rng.uniform(max(1 - strength, 0), 1 + strength, 3)
    for index in rng.permutation(3):
        image = (_brightness, _contrast, _saturation)[index](image, float(factors[index]))
    return image


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
    return cv2.convertScaleAbs(image, alpha=factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
    mean = float(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).mean())
    levels = (np.arange(256) - mean) * factor + mean
    return cv2.LUT(image, levels.round().clip(0, 255).astype(np.uint8))


def _saturation(image: np.ndarray, factor: float) -> np.ndarray:
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return cv2.addWeighted(image, factor, gray, 1 - factor, 0)
