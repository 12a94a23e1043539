"""The directory of a run: options, metadata, table of results, checkpoints; and how a run ends early."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.optim import Optimizer

from models.weights import save_checkpoint, strip_checkpoint
from utils.base.errors import DataError, OutOfMemory, WriteError
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write, claim_folder, command_for, relative_to_cwd, remove_if_empty
from utils.base.processes import sole_user
from utils.base.yaml_io import plain, write_yaml
from utils.data.loader_workers import WorkerError
from utils.loggers.callbacks import Callbacks
from utils.tasks.task import Task
from utils.train.hyp import Hyp
from utils.train.loss_meter import DivergedError

if TYPE_CHECKING:
    from utils.train.distributed import ProcessGroup
    from utils.train.train_options import TrainOptions
    from utils.val.accumulator import ValResult

_TRANSIENT = ("resume",)  # options that are not part of the run


@dataclass(frozen=True)
class TrainResult:
    """Result of a training: its directory, metrics and checkpoints."""

    save_dir: Path
    fitness: float  # of best.pt, or of the latest validation where there is none
    metrics: dict[str, float] = field(default_factory=dict)  # by the names of results.csv
    best: Path | None = None
    last: Path | None = None


class RunDir:
    """Files of a run: weights/{last,best,epochN}.pt, opt.yaml, hyp.yaml, results.csv."""

    def __init__(self, folder: Path, task: Task | None = None) -> None:
        self.folder = folder
        self.task = task or Task()
        self.columns = self.task.columns
        self.last = folder / "weights" / "last.pt"
        self.best = folder / "weights" / "best.pt"
        self.table = folder / "results.csv"
        self.metadata: dict[str, Any] = {}  # stored in each checkpoint
        self.started = time.monotonic()
        self.first_epoch = 0
        self.row: dict[str, float] = {}  # of the latest epoch
        self.problem = ""  # why the latest checkpoint could not be written
        self._saved: int | None = None  # epoch of last.pt, if this call has written it
        self._best: dict[str, Any] | None = None  # a best checkpoint that could not be written
        self._lines: list[str] = []  # of the table that could not be written

    @classmethod
    def choose(cls, options: TrainOptions, resumed: Path | None = None, task: Task | None = None) -> RunDir:
        """Return the directory of the run that is resumed, or a new one, which is made."""
        if resumed is not None:
            return cls(resumed, task)
        name = Path(options.cfg).stem if options.name == "cfg" and options.cfg else options.name
        return cls(claim_folder(Path(options.project) / name, exist_ok=options.exist_ok), task)

    @classmethod
    def of_process_group(
        cls,
        options: TrainOptions,
        process_group: ProcessGroup,
        resumed: Path | None = None,
        task: Task | None = None,
    ) -> RunDir:
        """Return the same directory on all ranks; only rank 0 writes."""
        folder = cls.choose(options, resumed).folder if process_group.is_main else Path()
        chosen = process_group.broadcast(folder)
        return cls(chosen, task) if process_group.is_main else ReadOnlyRunDir(chosen, task)

    def __str__(self) -> str:
        return relative_to_cwd(self.folder)

    def open(
        self, options: TrainOptions, hyp: Hyp, epoch: int = 0, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Make the directory, write the options, and keep the rows of the table before `epoch`.

        Args:
            options: of train.py.
            hyp: hyperparameters.
            epoch: the first epoch that is not complete.
            metadata: of the run, see `run_metadata`.

        Raises:
            DataError: the directory cannot be written.
        """
        self.started, self.first_epoch = time.monotonic(), epoch
        metadata = dict(metadata or {})
        values = {key: value for key, value in options.as_dict().items() if key not in _TRANSIENT}
        values |= {"hyp": dict(hyp), "save_dir": str(self.folder)}
        self.metadata = plain({"opt": values, "hyp": dict(hyp), **metadata})
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            for part in self.last.parent.glob(".*.part"):  # unfinished checkpoints of a killed run
                part.unlink()
            write_yaml(self.folder / "opt.yaml", values | {"identity": metadata})
            write_yaml(self.folder / "hyp.yaml", dict(hyp))
            self._keep_rows(epoch)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{self}: cannot write there ({reason}); choose another --project") from error

    def held(self) -> AbstractContextManager[None]:
        """Hold the directory while it is written to, so that no other run mixes its results with these."""
        return sole_user(self.folder)

    def _keep_rows(self, epoch: int) -> None:
        """Drop the rows of epochs that will be trained again: all of them in a new run."""
        rows: list[list[str]] = []
        if epoch and self.table.exists():
            with self.table.open(newline="") as file:
                rows = [row for row in list(csv.reader(file))[1:] if row and float(row[0]) < epoch]
        with atomic_write(self.table, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([self.columns, *rows])
        if rows:
            self.row = dict(zip(self.columns, map(float, rows[-1]), strict=True))

    def write_row(self, row: dict[str, float]) -> None:
        """Append an epoch to the table, and those that could not be written before."""
        self.row = row
        self._lines.append(",".join(f"{row[name]:.6g}" for name in self.columns) + "\n")
        size = self.table.stat().st_size if self.table.exists() else 0
        try:
            with self.table.open("a", newline="") as file:
                file.writelines(self._lines)
        except OSError as error:
            with suppress(OSError):  # a part of a line would look like one
                os.truncate(self.table, size)
            LOG.warning(f"{self.table}: cannot be written ({error.strerror}); the next epoch tries again")
        else:
            self._lines.clear()

    def save(self, content: dict[str, Any], *, best: bool, period: int = -1) -> None:
        """Write last.pt, and before it best.pt and epochN.pt when they are due.

        In this order a run that is killed in between resumes from the last.pt before, and writes them again.
        If the disk is full, a warning says so, the run continues, and the next call tries again.
        """
        content = content | self.metadata
        due = [self.best] if best else []
        if period > 0 and content["epoch"] % period == 0:
            due.append(self.last.with_name(f"epoch{content['epoch']}.pt"))
        try:
            if self._best and not best:
                save_checkpoint(self.best, self._best)
            self._best = None
            _write_each([*due, self.last], content)
        except OSError as error:
            if best:
                self._best = deepcopy(content)
            self.problem = f"{relative_to_cwd(self.last)}: cannot be written ({error.strerror or error})"
            LOG.warning(f"{self.problem}; {self._what_is_complete()}; the next save tries again")
        else:
            self._saved, self.problem = content["epoch"], ""

    def _what_is_complete(self) -> str:
        if self._saved is not None:
            return f"what is there is of epoch {self._saved}, and complete"
        return "what is there is complete" if self.last.exists() else "no epoch is saved yet"

    def check_saved(self) -> None:
        """Raise WriteError if the latest checkpoint could not be written."""
        if self.problem:
            self.log_resume_command()
            raise WriteError(f"{self.problem}; {self._what_is_complete()}; free space, then resume")

    def log_duration(self, epoch: int) -> None:
        """Log the epochs and hours of this call; `epoch` is the first one that was not trained."""
        hours = (time.monotonic() - self.started) / 3600
        LOG.info(f"\n{epoch - self.first_epoch} epochs completed in {hours:.3f} hours.")

    def strip(self) -> None:
        """Reduce last.pt and best.pt to what inference needs."""
        for path in (self.best, self.last):  # last.pt comes last: until then a killed run can be resumed
            if path.exists():
                try:
                    strip_checkpoint(path)
                except OSError as error:
                    reason = error.strerror or error
                    LOG.warning(f"{path}: complete, but not reduced for inference ({reason})")

    def result(self, fitness: float, row: Mapping[str, float] | None = None) -> TrainResult:
        """Return the result of the run; `row` holds the final metrics."""
        row = row or {}
        best, last = (path if path.exists() else None for path in (self.best, self.last))
        metrics = {name: row[name] for name in self.task.measured if name in row}
        return TrainResult(self.folder, fitness, metrics, best, last)

    def log_resume_command(self) -> None:
        """Log the command that resumes from the latest checkpoint."""
        if self.last.exists():
            path = relative_to_cwd(self.last)
            LOG.info(f"To resume: {command_for(self.task.scripts[0])} --resume {quoted(path)}")
        else:
            LOG.info("No epoch is complete yet, so there is no checkpoint to resume from.")


class ReadOnlyRunDir(RunDir):
    """The directory of a run on ranks other than 0, which write nothing."""

    def open(
        self, options: TrainOptions, hyp: Hyp, epoch: int = 0, metadata: Mapping[str, Any] | None = None
    ) -> None:
        """Write nothing."""

    def write_row(self, row: dict[str, float]) -> None:
        """Write nothing."""
        self.row = row

    def save(self, content: dict[str, Any], *, best: bool, period: int = -1) -> None:
        """Write nothing."""

    def log_resume_command(self) -> None:
        """Log nothing: rank 0 does."""

    def held(self) -> AbstractContextManager[None]:
        """Hold nothing: rank 0 does."""
        return nullcontext()


def _write_each(paths: Sequence[Path], content: dict[str, Any]) -> None:
    """Write one checkpoint to several paths, in order."""
    first, *copies = paths
    save_checkpoint(first, content)
    for path in copies:
        with first.open("rb") as source, atomic_write(path) as target:
            shutil.copyfileobj(source, target)


def quoted(path: str) -> str:
    """Quote a path for a command line if it needs it."""
    return f'"{path}"' if " " in path or os.sep == "\\" else path


def table_row(
    columns: Sequence[str],
    epoch: int,
    losses: Sequence[float],
    result: ValResult | None,
    optimizer: Optimizer,
) -> dict[str, float]:
    """Return the row of an epoch in results.csv; metrics that were not measured are NaN."""
    count = sum("lr" in name for name in columns)
    rates = [group["lr"] for group in optimizer.param_groups[:count]]  # those of new layers are a multiple
    missing = [math.nan] * (len(columns) - 1 - len(losses) - count)
    measured = result.results if result is not None else missing
    return dict(zip(columns, (epoch, *losses, *measured, *rates), strict=True))


class Closable(Protocol):
    """An object with worker processes."""

    def close(self) -> None:
        """End the worker processes."""


@contextmanager
def guard(run: RunDir, loaders: Closable, callbacks: Callbacks) -> Iterator[None]:
    """Clean up after the training, also on errors: log how to resume, end workers, tear down callbacks."""
    try:
        with run.held():
            yield
    except (KeyboardInterrupt, SystemExit):
        run.log_resume_command()
        raise
    except DivergedError as error:
        kept = f". {relative_to_cwd(run.last)} is from before that" if run.last.exists() else ""
        raise DivergedError(f"{error}{kept}") from error
    except (WorkerError, OutOfMemory):
        run.log_resume_command()
        raise
    finally:
        loaders.close()
        callbacks.teardown()
        remove_if_empty(run.folder)


if TYPE_CHECKING:
    from utils.data.loader import Samples


def run_metadata(seed: int, sets: Mapping[str, Samples] | None = None) -> dict[str, Any]:
    """Return the metadata that checkpoints and opt.yaml hold, as plain data; `sets` are datasets by split."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "seed": seed,
        "git": git_info(),
        "versions": versions(),
        "data": {split: dataset_digest(dataset) for split, dataset in (sets or {}).items()},
    }


def versions() -> dict[str, str]:
    """Return versions and threads of what computes: others may round differently."""
    import cv2
    import numpy

    from utils.native.chain_triton import is_enabled
    from utils.native.library import library

    modules = {"torch": torch, "numpy": numpy, "opencv": cv2}
    known = {name: str(module.__version__) for name, module in modules.items()}
    kernels = "PyTorch's" if library() is None else "compiled"
    if is_enabled():
        kernels += " and Triton"
    threads = str(torch.get_num_threads())
    return {"python": platform.python_version(), **known, "threads": threads, "kernels": kernels}


def dataset_digest(dataset: Samples) -> dict[str, Any]:
    """Return the number of images and labels, and a digest of files, sizes and labels."""
    rows = dataset.labels.joined()
    digest = hashlib.sha256(dataset.shapes.tobytes() + dataset.labels.counts.tobytes() + rows.tobytes())
    digest.update(dataset.content.encode())
    return {"pictures": len(dataset), "labels": len(rows), "digest": digest.hexdigest()[:16]}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List changes of data, versions and commit since a checkpoint: results may differ in the last bits."""
    changes = []
    for split, old in (before.get("data") or {}).items():
        new = now["data"].get(split, {})
        if new == old:
            continue
        counts = [
            f"{new[key]} {word}, the run had {old[key]}"
            for key, word in (("pictures", "images"), ("labels", "labels"))
            if new[key] != old[key]
        ]
        what = "; ".join(counts) or "the same number of images and labels, but other ones"
        changes.append(f"{split} data has changed: {what}")
    for name, old in (before.get("versions") or {}).items():
        new = now["versions"].get(name)
        if new != old:
            changes.append(f"{name} is {new}, the run had {old}")
    old, new = ((metadata.get("git") or {}).get("commit") for metadata in (before, now))
    if old and new and old != new:
        changes.append(f"the code is that of commit {new[:12]}, the run had {old[:12]}")
    return changes


def git_info() -> dict[str, str | None]:
    """Return remote, branch and commit of this checkout, from the local repository only; None if unknown."""
    questions = {
        "remote": ["config", "--get", "remote.origin.url"],
        "branch": ["rev-parse", "--abbrev-ref", "HEAD"],
        "commit": ["rev-parse", "HEAD"],
    }
    if not (ROOT / ".git").exists():
        return dict.fromkeys(questions)
    return {name: _git(words) for name, words in questions.items()}


def _git(words: list[str]) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
