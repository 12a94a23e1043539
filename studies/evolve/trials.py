"""Candidates of an evolution and their results, each in a folder of its own."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from studies.jobs.job import MINUTES, FailedError, Job, Minutes
from utils.base.errors import ConfigError, DataError
from utils.base.paths import atomic_write
from utils.base.processes import LOG_FILE
from utils.base.yaml_io import plain, write_yaml
from utils.plots.results import read_results
from utils.tasks.task import get_task
from utils.train.hyp import Hyp

TRIAL, RESULT, RUN = "trial.json", "result.json", "run"


@dataclass(frozen=True)
class Result:
    """Outcome of a candidate.

    Attributes:
        index: its number, from 0.
        hyp: its hyperparameters.
        metrics: by their names in results.csv; empty if it failed.
        minutes: of its training.
        failure: why it failed; empty if it did not.
        same_as: number of another candidate with the same hyperparameters, whose metrics these are; -1: none.
    """

    index: int
    hyp: Hyp
    metrics: dict[str, float] = field(default_factory=dict)
    minutes: float = 0.0
    failure: str = ""
    same_as: int = -1

    def save(self, home: Path) -> None:
        """Write result.json, and remove the weights, which only a resumed training would need."""
        folder = candidate_folder(home, self.index)
        _write(folder / RESULT, asdict(self))
        shutil.rmtree(folder / RUN / "weights", ignore_errors=True)


@dataclass(frozen=True)
class Trial(Job[Result]):
    """A candidate that is to be trained."""

    index: int
    hyp: Hyp
    flags: tuple[str, ...]  # of its train script, except --hyp and those of the folder and device
    task: str = "detect"

    returned_files = (LOG_FILE, f"{RUN}/results.csv", f"{RUN}/opt.yaml")

    @property
    def title(self) -> str:
        return f"candidate {self.index:04d}"

    def folder(self, home: Path) -> Path:
        return candidate_folder(home, self.index)

    def train_folder(self, home: Path) -> Path:
        return self.folder(home) / RUN

    def train_flags(self, home: Path) -> tuple[str, ...]:
        return (*self.flags, "--hyp", str(self.folder(home) / "hyp.yaml"))

    def save(self, home: Path) -> Path:
        folder = self.folder(home)
        content = plain(asdict(self))
        if folder.exists() and _read(folder / TRIAL) != content:  # of another evolution, on a worker
            shutil.rmtree(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_yaml(folder / "hyp.yaml", self.hyp)
        _write(folder / TRIAL, content)
        return folder

    def completed(self, home: Path) -> Result | None:
        result = read_result(self.folder(home))
        return None if result is None or result.failure else result

    def finish(self, home: Path, minutes: float) -> Result:
        columns = read_results(self.train_folder(home) / "results.csv")
        metrics = {name: float(columns[name][-1]) for name in get_task(self.task).measured}
        if not math.isfinite(sum(metrics.values())):
            raise FailedError(self.title, "its metrics are not finite")
        result = Result(self.index, self.hyp, metrics, round(minutes, 3))
        result.save(home)
        return result

    def fail(self, home: Path, error: FailedError) -> Result:
        """Return a failed result, and remove the run, so that another attempt starts from scratch.

        Raises:
            ConfigError: a flag, file or dataset cannot be used, so that every candidate would fail.
        """
        if error.exit_status == ConfigError.status:
            raise ConfigError(f"{self.title}: {error.reason}")
        minutes = self.folder(home) / MINUTES
        result = Result(self.index, self.hyp, minutes=round(Minutes(minutes).total, 3), failure=error.reason)
        shutil.rmtree(self.train_folder(home), ignore_errors=True)
        minutes.unlink(missing_ok=True)
        result.save(home)
        return result


class Journal:
    """Results of all candidates of an evolution, as their folders hold them."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.results: dict[int, Result] = {}
        for folder in home.glob("candidates/*"):
            if (result := read_result(folder)) is not None:
                self.results[result.index] = result

    def first(self, count: int) -> list[Result] | None:
        """Return the results of candidates 0 to count - 1; None if one of them is missing."""
        if any(index not in self.results for index in range(count)):
            return None
        return [self.results[index] for index in range(count)]

    def prefix(self) -> list[Result]:
        """Return the results up to the first one that is missing."""
        count = next(index for index in range(len(self.results) + 1) if index not in self.results)
        return [self.results[index] for index in range(count)]

    def proposed(self, index: int) -> Hyp | None:
        """Return the hyperparameters of a candidate that was proposed before the evolution was stopped."""
        content = _read(candidate_folder(self.home, index) / TRIAL)
        return None if content is None else dict(content["hyp"])

    def record(self, result: Result) -> None:
        """Add a result, and save it."""
        result.save(self.home)
        self.results[result.index] = result

    def forget(self, index: int) -> None:
        """Remove a result, so that its candidate is trained again."""
        (candidate_folder(self.home, index) / RESULT).unlink(missing_ok=True)
        self.results.pop(index, None)

    def in_order(self) -> list[Result]:
        """Return all results by number."""
        return [self.results[index] for index in sorted(self.results)]


def read_result(folder: Path) -> Result | None:
    """Read the result of the candidate in a folder, if there is one.

    Raises:
        DataError: result.json is damaged.
    """
    content = _read(folder / RESULT)
    if content is None:
        return None
    try:
        return Result(**content)
    except TypeError as error:
        raise _damaged(folder / RESULT, error) from error


def candidate_folder(home: Path, index: int) -> Path:
    """Return the folder of a candidate."""
    return home / "candidates" / f"{index:04d}"


def _write(path: Path, content: Any) -> None:
    with atomic_write(path, "w", encoding="utf-8") as file:
        json.dump(content, file, indent=1)


def _read(path: Path) -> dict[str, Any] | None:
    """Read a json file; None if it does not exist."""
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise _damaged(path, error) from error
    return content


def _damaged(path: Path, error: Exception) -> DataError:
    return DataError(f"{path}: damaged ({error}); remove it, and its candidate is trained again")
