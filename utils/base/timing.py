"""Stopwatches that wait for the GPU to finish, and the stages of detection that they time."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


STAGES = ("pre-process", "inference", "NMS")


def now(device: torch.device | None = None) -> float:
    """Return seconds of a monotonic clock, after all work queued on `device` is done."""
    if device is not None and device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)
    return time.perf_counter()


class Stopwatch:
    """Stopwatch of `with` blocks: `total` seconds of all, `last` of the latest."""

    def __init__(self, device: torch.device | None = None) -> None:
        self.device = device
        self.total = 0.0
        self.last = 0.0
        self._start = 0.0

    def __enter__(self) -> Stopwatch:
        self._start = now(self.device)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.last = now(self.device) - self._start
        self.total += self.last
