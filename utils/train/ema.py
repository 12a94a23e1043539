"""The moving average of a model's weights, which is what gets validated and kept."""

from __future__ import annotations

import copy
import math
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class ModelEMA(Generic[M]):
    """Average every floating entry of a model's state (batch norm statistics included) over updates.

    The decay rises from 0 to `decay` over about `tau` updates, so the first ones count.
    Make it when the model is final: anchors, classes and memory format are copied once.
    """

    def __init__(self, model: M, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates
        self._own = _floating(self.model)

    def decay_at(self, updates: int) -> float:
        """The weight of the old average in the given update, counted from 1."""
        return self.decay * (1 - math.exp(-updates / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average a step towards `model`'s present weights."""
        self.updates += 1
        # One pass over all tensors; a Python loop over some 350 costs more than the arithmetic.
        torch._foreach_lerp_(self._own, _floating(model), 1 - self.decay_at(self.updates))

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, by the model's keys."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from saved weights and the number of updates behind them."""
        self.model.load_state_dict(state)
        self.updates = updates


def _floating(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.dtype.is_floating_point]
