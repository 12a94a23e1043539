"""The most probable classes of an image: chosen, as text, and written into the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from utils.plots.annotator import draw_text

_IMAGENET_CLASSES, _IMAGENET_FIRST = 1000, "n01440764"
TOP = 5  # classes of a prediction, the most probable first
_CORNER, _SCALE = 32, 0.8  # left and top of the text on an image, pixels; its size
_LINE = round(38 * _SCALE)  # pixels between two lines

Rows = Iterable[Sequence[float]]  # (k, 2): probability and class


def top_classes(probabilities: Tensor) -> Tensor:
    """Choose the five most probable classes of each image; all of them, if there are fewer.

    Args:
        probabilities: (B, nc).

    Returns:
        (B, k, 2): probability and class, the most probable first.
    """
    best = probabilities.topk(min(TOP, probabilities.shape[1]), 1)
    return torch.stack((best.values, best.indices.to(best.values)), 2)


def describe_top(rows: Rows, names: Mapping[int, str]) -> str:
    """Return classes with their probabilities, such as `cat 0.90, dog 0.08`."""
    words = (f"{names.get(int(index), int(index))} {probability:.2f}" for probability, index in rows)
    return ", ".join(words)


def caption_lines(rows: Rows, names: Mapping[int, str]) -> list[str]:
    """Return a line for each class: its probability and name."""
    return [f"{probability:.2f} {names.get(int(index), int(index))}" for probability, index in rows]


def draw_lines(image: np.ndarray, lines: Iterable[str]) -> None:
    """Write lines into an image (H, W, 3): white with a dark edge, which is readable on any ground."""
    for number, text in enumerate(lines, 1):
        x, y = _CORNER, _CORNER + number * _LINE
        for corner in ((x - 1, y - 1), (x + 1, y - 1), (x - 1, y + 1), (x + 1, y + 1)):
            draw_text(image, text, corner, _SCALE, (0, 0, 0), 2)
        draw_text(image, text, (x, y), _SCALE, (255, 255, 255), 2)


def shown_names(names: Mapping[int, str]) -> dict[int, str]:
    """Return class names; the 1000 ids of ImageNet (n01440764, ...) become words (tench, ...)."""
    if len(names) != _IMAGENET_CLASSES or names.get(0) != _IMAGENET_FIRST:
        return dict(names)
    from torchvision.models import ResNet18_Weights

    return dict(enumerate(ResNet18_Weights.IMAGENET1K_V1.meta["categories"]))
