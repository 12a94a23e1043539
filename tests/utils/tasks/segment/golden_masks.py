"""Golden masks: arrays of bits, prototypes and coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.known import arrays, golden

PROCESS: dict[str, dict[str, Any]] = golden("14_segment_masks")["process"]


class Detected(NamedTuple):
    """Detections of one image."""

    protos: Tensor  # (32, h, w)
    coefficients: Tensor  # (5, 32)
    boxes: Tensor  # (5, 4) xyxy in pixels of the input
    native_boxes: Tensor  # (5, 4) xyxy in pixels of the image
    input_hw: tuple[int, int]
    image_hw: tuple[int, int]


def detected(name: str) -> Detected:
    """Return the inputs of a golden case."""
    stored = arrays("14_segment_masks")
    protos, coefficients = (
        torch.from_numpy(stored[f"{name}/{key}_x16"]).float() / 16 for key in ("proto", "coef")
    )
    boxes, native_boxes = (torch.from_numpy(stored[f"{name}/{key}"]) for key in ("boxes", "native_boxes"))
    (height, width), (h, w) = PROCESS[name]["input_hw"], PROCESS[name]["native_hw"]
    return Detected(protos, coefficients, boxes, native_boxes, (height, width), (h, w))


def bits(packed: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the bool array of a shape that `np.packbits` has packed."""
    size = int(np.prod(shape))
    return np.unpackbits(packed)[:size].reshape(tuple(shape)).astype(bool)


def gap(masks: Tensor | np.ndarray, expected: np.ndarray) -> float:
    """Return the largest fraction of the pixels of a mask (n, h, w) that differ."""
    found = np.asarray(masks).astype(bool)
    assert found.shape == expected.shape
    different = (found != expected).sum((1, 2)) / np.maximum(expected.sum((1, 2)), 1)
    return float(different.max(initial=0))
