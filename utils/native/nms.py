"""Greedy NMS on the CPU; see nms.c."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from utils.native.library import is_traced, library


def can_keep(boxes: Tensor) -> bool:
    """Return whether `keep_boxes` can run: on the CPU, no tracing, with the compiled kernels."""
    return boxes.device.type == "cpu" and type(boxes) is Tensor and not is_traced() and library() is not None


def keep_boxes(boxes: Tensor, threshold: float, limit: int) -> Tensor:
    """Return the indices (k,) of the boxes that NMS keeps, the first `limit` of them.

    Args:
        boxes: (n, 4) float64 xyxy, the best first, for which `can_keep` is true.
        threshold: a box with a greater IoU to a better one is dropped.
        limit: maximum number of boxes.

    Raises:
        MemoryError: too little memory.
    """
    kernels = library()
    assert kernels is not None
    boxes, limit = boxes.contiguous(), min(limit, len(boxes))
    kept = torch.empty(limit, dtype=torch.int64)
    count: int = kernels.keep_boxes(
        ctypes.c_void_p(boxes.data_ptr()),
        ctypes.c_int64(len(boxes)),
        ctypes.c_double(threshold),
        ctypes.c_int64(limit),
        ctypes.c_void_p(kept.data_ptr()),
    )
    if count < 0:
        raise MemoryError("NMS")
    return kept[:count]
