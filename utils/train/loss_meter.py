"""The losses of an epoch: running means, the progress row, and the check that they are finite."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from utils.base.errors import YoloError
from utils.base.log import LOG, Bar

_REFRESH = 0.3  # seconds between rows on an accelerator, where reading a loss synchronizes the device


class DivergedError(YoloError):
    """A loss or a gradient is not finite."""


class LossMeter:
    """Mean losses of an epoch, kept on the device until they are read."""

    def __init__(self, device: torch.device, epoch: int, sums: Sequence[float], count: int = 0) -> None:
        self.epoch = epoch
        self.count = count
        self._sums = torch.tensor(list(sums), device=device)  # of each loss, over `count` batches
        self._bad = torch.full((), math.inf, device=device)  # first batch with a value that is not finite

    def add(self, items: Tensor, index: int) -> None:
        """Add the losses of batch `index`."""
        self._sums += items
        self.count += 1
        self.watch(items.sum(), index)

    def watch(self, value: Tensor, index: int) -> None:
        """Remember the first batch where `value` is not finite, without synchronizing the device."""
        found = torch.where(torch.isfinite(value), math.inf, float(index))
        self._bad = torch.minimum(self._bad, found)

    def sums(self) -> list[float]:
        """Return the sums so far, from which another meter can continue."""
        return self._sums.tolist()

    def read(self) -> list[float]:
        """Return the means so far.

        Raises:
            DivergedError: a value was not finite; the message names the batch and likely causes.
        """
        *sums, bad = torch.cat((self._sums, self._bad[None])).tolist()  # one copy from the device
        if bad < math.inf:
            raise DivergedError(
                f"epoch {self.epoch}, batch {bad:.0f}: the loss or its gradient is not finite. Likely "
                "causes: a learning rate that is too high (lr0 and warmup_bias_lr in --hyp), damaged initial "
                "weights, or wrong labels"
            )
        return [value / max(self.count, 1) for value in sums]


@dataclass(frozen=True)
class RowStyle:
    """How the progress of an epoch is shown; YOLOv5's scripts differ in it."""

    losses: Sequence[str]  # their titles
    first_epoch: int = 0  # number of the first epoch
    instances: bool = True  # show the number of labels in the last batch


class LiveRow:
    """The progress row of an epoch, updated after each batch."""

    def __init__(
        self, bar: Bar, meter: LossMeter, device: torch.device, epochs: int, style: RowStyle
    ) -> None:
        self.bar = bar
        self.meter = meter
        self.device = device
        self.style = style
        self.name = f"{meter.epoch + style.first_epoch}/{epochs - 1 + style.first_epoch}"
        self._shown = -math.inf
        columns = ("Epoch", "GPU_mem", *style.losses, *(("Instances",) if style.instances else ()), "Size")
        LOG.info("\n" + "".join(f"{column:>11}" for column in columns))

    def show(self, instances: int, size: int, last: bool) -> None:
        """Update the row; on an accelerator not more often than every `_REFRESH` seconds."""
        if self.device.type != "cpu" and not last and time.monotonic() - self._shown < _REFRESH:
            return
        self._shown = time.monotonic()
        losses = "".join(f"{value:11.4g}" for value in self.meter.read())
        count = f"{instances:11}" if self.style.instances else ""
        self.bar.set_text(f"{self.name:>11}{_memory(self.device):>11}{losses}{count}{size:11}")


def _memory(device: torch.device) -> str:
    used = torch.cuda.memory_reserved(device) if device.type == "cuda" else 0
    return f"{used / 1e9:.3g}G"
