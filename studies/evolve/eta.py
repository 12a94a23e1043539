"""How long an evolution takes: an estimate from one step, then from the candidates so far."""

from __future__ import annotations

import statistics
import time
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from studies.evolve.records import RUN, Result
from utils.base.log import LOG

_START = 5.0  # seconds until a process trains
_IMAGES = 16  # of a batch, where --batch-size is to be chosen


def minutes_of_training(opt: Namespace) -> float | None:
    """Minutes that a candidate will take on this machine's CPU; None on other devices, which it would occupy.

    Reading of images and the last validation are not in it.

    Raises:
        ConfigError, DataError: model, weights or data that cannot be used.
    """
    import torch

    from models.yolo import DetectionModel
    from utils.base.device import select_device
    from utils.data.dataset_yaml import read_data_yaml
    from utils.data.letterbox import check_img_size
    from utils.data.scan import load_labels
    from utils.train.setup import find_weights, make_config

    data = read_data_yaml(opt.data, allow_download=opt.download)
    count = len(load_labels(data.train, prefix="train: ").images)
    if select_device(opt.device.split(",")[0], verbose=False).type != "cpu":
        return None
    model = DetectionModel(make_config(opt, find_weights(opt)), nc=data.nc).train()
    side = check_img_size(opt.imgsz, stride=int(model.stride.max()))
    batch = min(opt.batch_size if opt.batch_size > 0 else _IMAGES, count)
    images = torch.rand(batch, 3, side, side)
    seconds = 0.0
    for _ in range(2):  # the first one is slower than all others
        started = time.perf_counter()
        sum(level.square().mean() for level in model(images)).backward()
        seconds = time.perf_counter() - started
    return (_START + opt.epochs * -(-count // batch) * seconds) / 60


_USUAL = 20  # latest candidates whose median is the usual time
_LOOK = 10.0  # seconds at least, in which epochs are counted


class Forecast:
    """Tell the time that is left.

    Args:
        jobs: candidates at the same time.
        epochs: of a candidate.
        known: results of earlier calls.
    """

    def __init__(self, jobs: int, epochs: int, known: Iterable[Result]) -> None:
        self.jobs = jobs
        self.epochs = epochs
        self._minutes = [result.minutes for result in known if _tells(result)]
        self._guessed = bool(self._minutes)
        self._seen: dict[
            Path, tuple[int, float]
        ] = {}  # the first epochs of a training, and when they were seen

    def note(self, result: Result) -> None:
        """A candidate is done."""
        if _tells(result):
            self._minutes.append(result.minutes)

    def left(self, count: int) -> str:
        """The time for so many candidates, in words; empty as long as nothing is known."""
        if not self._minutes or not count:
            return ""
        each = statistics.median(self._minutes[-_USUAL:])
        return f"about {in_words(each * count / self.jobs)} for {count} more"

    def watch(self, folder: Path, count: int) -> None:
        """Until a first candidate is done: tell the time for so many from the epochs that one has."""
        if self._guessed or self._minutes:
            return
        epochs, now = _epochs(folder / RUN / "results.csv"), time.monotonic()
        if not epochs:
            return
        before, since = self._seen.setdefault(folder, (epochs, now))
        if epochs > before and now - since >= _LOOK:
            self._guessed = True
            each = (now - since) / 60 / (epochs - before) * self.epochs
            LOG.info(
                f"judging by the first epochs: {in_words(each)} for a candidate, "
                f"about {in_words(each * count / self.jobs)} for all {count}"
            )


def in_words(minutes: float) -> str:
    """A time, in the unit that suits it."""
    if minutes < 1:
        return f"{minutes * 60:.0f} s"
    return f"{minutes:.0f} min" if minutes < 100 else f"{minutes / 60:.1f} h"


def _tells(result: Result) -> bool:
    return not result.failure and result.same_as < 0 and result.minutes > 0


def _epochs(table: Path) -> int:
    """Rows of a results.csv below its header."""
    try:
        return max(table.read_text(encoding="utf-8").count("\n") - 1, 0)
    except FileNotFoundError:
        return 0
