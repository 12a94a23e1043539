"""Estimate the duration of an evolution: from one training step, from first epochs, from candidates."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.evolve.trials import RUN, Result
from utils.base.log import LOG
from utils.tasks.task import get_task

if TYPE_CHECKING:
    from utils.train.train_options import TrainOptions

_START_UP = 5.0  # seconds until a process trains
_BATCH_SIZE = 16  # assumed for --batch-size -1


def minutes_of_training(options: TrainOptions) -> float | None:
    """Estimate the minutes of one candidate on this machine's CPU, from one training step.

    None on other devices, whose memory the step would occupy. Loading of images and validation are not
    included.

    Raises:
        ConfigError, DataError: model, weights or data that cannot be used.
    """
    import torch

    from models.yolo import make_model
    from utils.base.device import select_device
    from utils.train.build import find_weights, make_config

    task = get_task(options.model_task)
    data = task.read_val_data(options)
    count = task.count_images(data)
    if select_device(options.device.split(",")[0], verbose=False).type != "cpu":
        return None
    model = make_model(make_config(options, task, find_weights(options, task)), nc=data.nc).train()
    side, _ = task.image_size(options, int(model.stride.max()))
    batch = min(options.batch_size if options.batch_size > 0 else _BATCH_SIZE, count)
    images = torch.rand(batch, 3, side, side)
    seconds = 0.0
    for _ in range(2):  # the first step is slower
        started = time.perf_counter()
        sum(output.square().mean() for output in _flat(model(images))).backward()
        seconds = time.perf_counter() - started
    return (_START_UP + options.epochs * -(-count // batch) * seconds) / 60


def _flat(outputs: Any) -> list[Any]:
    """Return all tensors in what a head returns: maps, prototypes of masks beside them, or logits."""
    if not isinstance(outputs, list | tuple):
        return [outputs]
    return [tensor for output in outputs for tensor in _flat(output)]


_LATEST = 20  # candidates whose median time is used
_LEAST_SECONDS = 10.0  # in which epochs are counted


class Forecast:
    """Estimate of the remaining time.

    Args:
        jobs: candidates at the same time.
        epochs: of each candidate.
        known: results of earlier calls.
    """

    def __init__(self, jobs: int, epochs: int, known: Iterable[Result]) -> None:
        self.jobs = jobs
        self.epochs = epochs
        self._minutes = [result.minutes for result in known if _was_trained(result)]
        self._announced = bool(self._minutes)
        self._first_seen: dict[Path, tuple[int, float]] = {}  # by folder: epochs, and when they were counted

    def note(self, result: Result) -> None:
        """Use the time of a finished candidate."""
        if _was_trained(result):
            self._minutes.append(result.minutes)

    def left(self, count: int) -> str:
        """Return the time for `count` candidates in words; empty while it is unknown."""
        if not self._minutes or not count:
            return ""
        each = statistics.median(self._minutes[-_LATEST:])
        return f"about {format_minutes(each * count / self.jobs)} for {count} more"

    def watch(self, folder: Path, count: int) -> None:
        """Log once, before the first candidate ends, the time for `count` from the epochs in one folder."""
        if self._announced or self._minutes:
            return
        epochs, now = _epochs(folder / RUN / "results.csv"), time.monotonic()
        if not epochs:
            return
        before, since = self._first_seen.setdefault(folder, (epochs, now))
        if epochs > before and now - since >= _LEAST_SECONDS:
            self._announced = True
            each = (now - since) / 60 / (epochs - before) * self.epochs
            LOG.info(
                f"estimate from the first epochs: {format_minutes(each)} for a candidate, "
                f"about {format_minutes(each * count / self.jobs)} for all {count}"
            )


def format_minutes(minutes: float) -> str:
    """Format a time in seconds, minutes or hours."""
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _was_trained(result: Result) -> bool:
    return not result.failure and result.same_as < 0 and result.minutes > 0


def _epochs(table: Path) -> int:
    """Count the rows of a results.csv below its header."""
    try:
        return max(table.read_text(encoding="utf-8").count("\n") - 1, 0)
    except FileNotFoundError:
        return 0
