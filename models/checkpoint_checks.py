"""Checks of what a checkpoint holds, before a model is built of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from utils.base.errors import DataError
from utils.base.limits import CLASSES
from utils.base.log import LOG

_LARGEST_STRIDE = 4096  # pixels; that of P7 is 128


def check_state(state: Mapping[Any, Any], where: str) -> None:
    """Raise DataError unless all values are plain tensors: dense, and of a type that weights have.

    Args:
        state: tensors by key, as the file has them.
        where: the file, for messages.
    """
    for key, value in state.items():
        if not isinstance(key, str):
            raise DataError(f"{where}: a key of its weights is {key!r:.40}; expected text")
        if not isinstance(value, Tensor):
            kind = getattr(value, "class_name", type(value).__name__)
            raise DataError(
                f"{where}: {key} is no dense tensor ({kind}); save the model in float32 or float16"
            )
        small = value.dtype in (torch.int8, torch.uint8, torch.bool) or value.is_complex()
        if value.is_quantized or small or value.is_sparse or not value.device.type == "cpu":
            raise DataError(
                f"{where}: {key} is of type {str(value.dtype).removeprefix('torch.')}, which is no type of "
                "weights; save the model in float32"
            )


def warn_if_not_finite(state: Mapping[str, Tensor], where: str) -> None:
    """Warn about weights with NaN or infinite values, with which nothing is found."""
    for key, value in state.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            LOG.warning(f"{where}: {key} has NaN or infinite values: such a model finds nothing")
            return


def checked_strides(strides: list[float], where: str) -> list[float]:
    """Return strides.

    Raises:
        DataError: they are no whole numbers of pixels.
    """
    for stride in strides:
        if not (math.isfinite(stride) and stride.is_integer() and 1 <= stride <= _LARGEST_STRIDE):
            raise DataError(f"{where}: its stride is {stride}; expected a number of pixels, such as 8")
    return strides


def names_of_classes(names: dict[int, str], nc: int, where: str) -> dict[int, str]:
    """Return the names of `nc` classes: those that are missing are numbers; others are left out.

    Raises:
        DataError: no number of classes that a model can have.
    """
    if nc < 1:
        raise DataError(f"{where}: a damaged checkpoint (of {nc} classes)")
    CLASSES.check(nc, where)
    wrong = [number for number in range(nc) if number not in names] or [n for n in names if not 0 <= n < nc]
    if wrong:
        LOG.warning(f"{where}: has {nc} classes but {len(names)} names, first difference: class {wrong[0]}")
    return {number: names.get(number, str(number)) for number in range(nc)}
