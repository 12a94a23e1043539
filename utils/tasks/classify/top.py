"""The most probable classes of an image: chosen, as text, and written into the image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from utils.plots.annotator import draw_text

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
        origin = (_CORNER, _CORNER + number * _LINE)
        draw_text(image, text, origin, _SCALE, (0, 0, 0), 4)
        draw_text(image, text, origin, _SCALE, (255, 255, 255), 2)
