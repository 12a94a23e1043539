"""How long an evolution takes: said as soon as it can be known, then with every candidate."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from pathlib import Path

from studies.evolve.records import RUN, Result
from utils.base.log import LOG

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
