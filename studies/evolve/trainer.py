"""Train candidates, each in a process of its own; one that was begun is gone on with."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from studies.evolve.records import RUN, Result, Trial, read_result
from studies.jobs.ray_cluster import LostError
from studies.jobs.training import is_trained, training_command
from utils.base.errors import ConfigError
from utils.base.paths import relative_to_cwd
from utils.base.processes import LOG_FILE, Children, Machine, last_line, lock_folder
from utils.plots.results import read_results
from utils.train.run_dir import METRICS

_USAGE = 2  # exit status of a command line or yaml that the user has to correct
_ENDED = (-15, -2, 130, 143)  # exit statuses of a training that somebody has asked to end


class KilledError(LostError):
    """A training was killed, by the system that had no memory left perhaps."""


class Worker(Protocol):
    """Who trains candidates."""

    def __call__(self, trial: Trial) -> Result:
        """Train one; called from several threads."""
        ...

    def stop(self) -> None:
        """End what is under way, from another thread."""
        ...


class Trainer:
    """Train candidates on this machine.

    Args:
        home: folder of the evolution.
        machine: threads and devices.
    """

    def __init__(self, home: Path, machine: Machine) -> None:
        self.home = home
        self.machine = machine
        self._children = Children()

    def __call__(self, trial: Trial) -> Result:
        """Train a candidate, or go on with it; one that fails by itself is a result, too.

        Raises:
            ConfigError: a flag, file or dataset cannot be used, which no other candidate would fix.
            LostError: the training was told to end, or killed; it can be gone on with.
        """
        folder = trial.save(self.home)
        with self.machine.device() as device, lock_folder(folder) as held:
            known = read_result(folder)
            if (
                known is not None and not known.failure
            ):  # the message with it was lost on its way from a worker
                return known
            result = self._train(trial, folder, device, held)
            result.save(self.home)
            return result

    def stop(self) -> None:
        """End the processes that are running; train.py saves what it has."""
        self._children.stop()

    def _train(self, trial: Trial, folder: Path, device: str, held: Sequence[int]) -> Result:
        started = time.monotonic()
        run, failure = folder / RUN, ""
        flags = (*trial.flags, "--hyp", str(folder / "hyp.yaml"))
        if not is_trained(run, flags):
            command = training_command(run, flags, device)
            failure = self._describe(self._children.call(command, folder, self.machine.threads, held), folder)
        metrics = {} if failure else _read_metrics(run / "results.csv")
        minutes = round((time.monotonic() - started) / 60, 3)
        if not failure and not math.isfinite(sum(metrics.values())):
            failure = "its figures are no numbers"
        if failure:
            shutil.rmtree(run, ignore_errors=True)  # if it is tried once more, then from the start
            metrics = {}
        return Result(trial.index, trial.hyp, metrics, minutes, failure)

    def _describe(self, status: int, folder: Path) -> str:
        """Why a training failed, if it did and by itself."""
        if status == 0:
            return ""
        log = relative_to_cwd(folder / LOG_FILE)
        line = last_line(folder / LOG_FILE).removeprefix("ERROR: ")
        if status == _USAGE:
            raise ConfigError(f"candidate {folder.name}: {line}")
        if status in _ENDED:
            raise LostError(f"candidate {folder.name} was told to end; see {log}")
        if status < 0:
            raise KilledError(f"killed by signal {-status}")
        return line


def _read_metrics(table: Path) -> dict[str, float]:
    """The figures of the last epoch."""
    columns = read_results(table)
    return {name: float(columns[name][-1]) for name in METRICS}
