"""Learning rate, momentum and accumulation at each step: pure functions of the step's number.

Nothing here remembers anything, so a resumed run follows the same curve without a saved scheduler.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from utils.train.hyp import Hyp
from utils.train.optim import NOMINAL_BATCH

SHORTEST_WARMUP = 100  # batches, unless half of the run is shorter still


def linear(epoch: float, epochs: int, lrf: float) -> float:
    """Factor on the learning rate, falling from 1 to `lrf` in a straight line."""
    return (1 - epoch / epochs) * (1 - lrf) + lrf


def cosine(epoch: float, epochs: int, lrf: float) -> float:
    """Factor on the learning rate, falling from 1 to `lrf` along half a cosine."""
    return 1 + (lrf - 1) * (1 - math.cos(math.pi * epoch / epochs)) / 2


@dataclass(frozen=True)
class Schedule:
    """The course of a run of `epochs` times `batches` batches."""

    hyp: Hyp
    epochs: int
    batches: int  # in an epoch
    batch_size: int
    cos_lr: bool = False

    @property
    def warmup(self) -> int:
        """Batches of the warm-up: at least 100, at most half of the run; none if warmup_epochs is 0.

        Without the upper bound a short run would never leave its warm-up.
        """
        if self.hyp["warmup_epochs"] == 0:
            return 0
        wanted = max(round(self.hyp["warmup_epochs"] * self.batches), SHORTEST_WARMUP)
        return min(wanted, self.epochs * self.batches // 2)

    def factor(self, epoch: int) -> float:
        """Factor on the learning rate in an epoch."""
        return (cosine if self.cos_lr else linear)(epoch, self.epochs, self.hyp["lrf"])

    def accumulate(self, step: int) -> int:
        """Batches that make up an update at this step: 1 at first, up to the nominal batch."""
        return max(1, round(self._ramp(step, 1, NOMINAL_BATCH / self.batch_size)))

    def set(self, optimizer: Optimizer, step: int) -> None:
        """Give the optimizer its rates and momentum for a step, counted in batches over the run.

        In the warm-up the biases come down from `warmup_bias_lr`, all others up from 0.
        """
        factor = self.factor(step // self.batches)
        for index, group in enumerate(optimizer.param_groups):
            start = self.hyp["warmup_bias_lr"] if index % 3 == 0 else 0.0  # three groups, perhaps twice
            group["lr"] = self._ramp(step, start, group["initial_lr"] * factor)
            if "momentum" in group:
                group["momentum"] = self._ramp(step, self.hyp["warmup_momentum"], self.hyp["momentum"])

    def _ramp(self, step: int, start: float, end: float) -> float:
        """From `start` at step 0 in a straight line to `end` at the end of the warm-up, and on."""
        if step >= self.warmup:
            return end
        return start + (end - start) * step / self.warmup
