"""A training run in a folder of its own, of which compare.py and `train.py --evolve` start many.

The files of its folder say how far it is:

    run.json, trial.json         before it starts: flags, and what else decides its result
    claim                        locked by the process that is working in the folder
    begun                        exists during an attempt; one that is killed leaves it behind
    minutes.txt                  minutes of all attempts
    device.txt                   device of the last attempt
    log.txt                      output of all attempts
    results.csv, weights/        of train.py; candidates of an evolution have them in the subfolder run/
    measured.json, result.json   the result; the run is complete
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from utils.base.errors import DataError, YoloError
from utils.base.paths import atomic_write

STARTED, MINUTES, DEVICE = "begun", "minutes.txt", "device.txt"
T = TypeVar("T")


class JobError(YoloError):
    """A training run that did not reach its result.

    Args:
        title: of the run.
        reason: one line, without the title.
    """

    def __init__(self, title: str, reason: str) -> None:
        super().__init__(title, reason)  # both are needed to send the error to another process
        self.title, self.reason = title, reason

    def __str__(self) -> str:
        return f"{self.title}: {self.reason}"


class LostError(JobError):
    """The run was ended from outside, perhaps along with its machine; it can be resumed elsewhere."""


class KilledError(LostError):
    """The run was killed by a signal, perhaps because memory ran out."""


class FailedError(JobError):
    """A process of the run ended with an error, whose last line is the reason.

    Args:
        exit_status: of that process; 1 where it is unknown.
        log: path of the log, for the message.
    """

    def __init__(self, title: str, reason: str, exit_status: int = 1, log: str = "") -> None:
        super().__init__(title, reason)
        self.exit_status, self.log = exit_status, log

    def __str__(self) -> str:
        return f"{self.title}: failed ({self.reason})" + (f"; see {self.log}" if self.log else "")


class Job(ABC, Generic[T]):
    """A training run with a result of type T.

    Subclasses are frozen dataclasses, so that Ray can send them to other machines; `home` is the folder
    that holds the folders of all runs.
    """

    # Files to copy back from a machine that does not share the folder; the last one completes the run.
    returned_files: ClassVar[tuple[str, ...]]
    task: str = "detect"  # name of the task, whose train script is run

    @property
    @abstractmethod
    def title(self) -> str:
        """Name of the run in messages."""

    @abstractmethod
    def folder(self, home: Path) -> Path:
        """Return the folder of the run."""

    def train_folder(self, home: Path) -> Path:
        """Return the folder that train.py writes to."""
        return self.folder(home)

    @abstractmethod
    def train_flags(self, home: Path) -> tuple[str, ...]:
        """Return the flags of train.py, except those of the folder and the device."""

    def measure_command(self, home: Path) -> list[str]:
        """Return a command to run after the training; an empty one if there is none."""
        return []

    @abstractmethod
    def save(self, home: Path) -> Path:
        """Make the folder, write what is to be trained into it, and return it."""

    @abstractmethod
    def completed(self, home: Path) -> T | None:
        """Return the result of a complete run, None for any other."""

    @abstractmethod
    def finish(self, home: Path, minutes: float) -> T:
        """Write and return the result of a run whose processes have ended well.

        Raises:
            FailedError: they left no usable result.
        """

    def fail(self, home: Path, error: FailedError) -> T:
        """Return the result of a run that has failed, if it counts as one; by default the error is raised."""
        raise error


class Minutes:
    """Minutes of work, kept in a file and summed over all attempts.

    Raises:
        DataError: the file holds no number.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._earlier = float(file.read_text()) if file.is_file() else 0.0
        except ValueError as error:
            raise DataError(f"{file}: damaged, expected minutes; correct or remove it") from error
        self._started = time.monotonic()

    @property
    def total(self) -> float:
        """Minutes up to now."""
        return self._earlier + (time.monotonic() - self._started) / 60

    def add(self, minutes: float) -> None:
        """Count minutes of an attempt that was killed before it could save them."""
        self._earlier += minutes

    def save(self) -> None:
        """Write the total for the next attempt."""
        with atomic_write(self._file, "w") as file:
            file.write(f"{self.total:.3f}")


@contextmanager
def counted_minutes(folder: Path, checkpoint: Path) -> Iterator[Minutes]:
    """Count the minutes of an attempt in `folder`, on top of those of earlier ones.

    An earlier attempt that was killed counts up to its last `checkpoint`.
    """
    mark = folder / STARTED
    minutes = Minutes(folder / MINUTES)
    if mark.exists():
        worked = checkpoint.stat().st_mtime - mark.stat().st_mtime if checkpoint.is_file() else 0.0
        minutes.add(max(worked, 0.0) / 60)
        minutes.save()
    mark.write_text("")
    try:
        yield minutes
    finally:
        minutes.save()
        mark.unlink()
