"""The folder of a run: its options, its table of results, its checkpoints; and how a run ends early."""

from __future__ import annotations

import csv
import math
import os
import shutil
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch.optim import Optimizer

from models.weights import save_checkpoint, strip_checkpoint
from utils.base.errors import DataError, YoloError
from utils.base.log import LOG
from utils.base.paths import atomic_write, increment_path, relative_to_cwd, typed
from utils.base.yaml_io import plain, write_yaml
from utils.loggers.callbacks import Callbacks
from utils.train.hyp import Hyp
from utils.train.loss_meter import DivergedError

if TYPE_CHECKING:
    from utils.train.distributed import ProcessGroup
    from utils.val.accumulator import EvalResult

COLUMNS = (
    "epoch",
    *("train/box_loss", "train/obj_loss", "train/cls_loss"),
    *("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss"),
    *("x/lr0", "x/lr1", "x/lr2"),
)
METRICS = COLUMNS[4:11]
_TRANSIENT = ("given", "resume", "save_dir")  # options that say nothing about the run


@dataclass(frozen=True)
class TrainResult:
    """What a training gives back to a caller."""

    save_dir: Path
    fitness: float  # of best.pt, or of the latest validation where there is none
    metrics: dict[str, float] = field(default_factory=dict)  # by the names of results.csv
    best: Path | None = None
    last: Path | None = None


class RunDir:
    """Files of a run: weights/{last,best,epochN}.pt, opt.yaml, hyp.yaml, results.csv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "weights" / "last.pt"
        self.best = folder / "weights" / "best.pt"
        self.table = folder / "results.csv"
        self.metadata: dict[str, Any] = {}  # what each checkpoint says about the run
        self.started = time.monotonic()
        self.first_epoch = 0
        self.row: dict[str, float] = {}  # the last one of the table

    @classmethod
    def choose(cls, opt: Namespace) -> RunDir:
        """The first free folder for a new run, or the folder of the run that is resumed."""
        if opt.resume:
            return cls(Path(opt.save_dir))
        name = Path(opt.cfg).stem if opt.name == "cfg" and opt.cfg else opt.name
        return cls(increment_path(Path(opt.project) / name, exist_ok=opt.exist_ok))

    @classmethod
    def of_process_group(cls, opt: Namespace, process_group: ProcessGroup) -> RunDir:
        """The same folder for all processes; only one of them writes."""
        chosen = process_group.share(cls.choose(opt).folder if process_group.leads else Path())
        return cls(chosen) if process_group.leads else ReadOnlyRunDir(chosen)

    def __str__(self) -> str:
        return relative_to_cwd(self.folder)

    def open(
        self, opt: Namespace, hyp: Hyp, epoch: int = 0, identity: Mapping[str, Any] | None = None
    ) -> None:
        """Make the folder, write the options, and keep the rows of the table before `epoch`.

        Args:
            opt: the options.
            hyp: hyperparameters.
            epoch: the first one that is not complete.
            identity: what the run is made with, see `run_identity`.

        Raises:
            DataError: the folder cannot be written.
        """
        self.started, self.first_epoch = time.monotonic(), epoch
        identity = dict(identity or {})
        options = {key: value for key, value in vars(opt).items() if key not in _TRANSIENT}
        options |= {"hyp": dict(hyp), "save_dir": str(self.folder)}
        self.metadata = plain({"opt": options, "hyp": dict(hyp), **identity})
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            for part in self.last.parent.glob(".*.part"):  # half a checkpoint, of a run that was killed
                part.unlink()
            write_yaml(self.folder / "opt.yaml", options | {"identity": identity})
            write_yaml(self.folder / "hyp.yaml", dict(hyp))
            self._keep_rows(epoch)
        except OSError as error:
            reason = error.strerror or error
            raise DataError(f"{self}: cannot write there ({reason}); choose another --project") from error

    def _keep_rows(self, epoch: int) -> None:
        """Drop the rows that the run is about to write again: all of them in a new run."""
        rows: list[list[str]] = []
        if epoch and self.table.exists():
            with self.table.open(newline="") as file:
                rows = [row for row in list(csv.reader(file))[1:] if row and float(row[0]) < epoch]
        with atomic_write(self.table, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
        if rows:
            self.row = dict(zip(COLUMNS, map(float, rows[-1]), strict=True))

    def write_row(self, row: dict[str, float]) -> None:
        """Append an epoch to the table."""
        self.row = row
        with self.table.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(f"{row[name]:.6g}" for name in COLUMNS)

    def save(self, content: dict[str, Any], *, best: bool, period: int = -1) -> None:
        """Write last.pt, and before it best.pt and epochN.pt when they are due.

        In this order: a run that is killed in between goes on from the last.pt before, and writes them again.
        """
        due = [self.best] if best else []
        if period > 0 and content["epoch"] % period == 0:
            due.append(self.last.with_name(f"epoch{content['epoch']}.pt"))
        first, *copies = [*due, self.last]
        save_checkpoint(first, content | self.metadata)
        for path in copies:
            with first.open("rb") as source, atomic_write(path) as target:
                shutil.copyfileobj(source, target)

    def say_how_long(self, epoch: int) -> None:
        """Print the epochs and hours of this call, `epoch` being the first that was not trained."""
        hours = (time.monotonic() - self.started) / 3600
        LOG.info(f"\n{epoch - self.first_epoch} epochs completed in {hours:.3f} hours.")

    def strip(self) -> None:
        """Reduce last.pt and best.pt to what inference needs."""
        for path in (self.best, self.last):  # as long as last.pt is whole, a killed run can be finished
            if path.exists():
                strip_checkpoint(path)

    def result(self, fitness: float, row: Mapping[str, float] | None = None) -> TrainResult:
        """What the run gives back."""
        row = row or {}
        best, last = (path if path.exists() else None for path in (self.best, self.last))
        metrics = {name: row[name] for name in METRICS if name in row}
        return TrainResult(self.folder, fitness, metrics, best, last)

    def say_how_to_resume(self) -> None:
        """Print the command that goes on from the latest checkpoint."""
        if self.last.exists():
            path = relative_to_cwd(self.last)
            LOG.info(f"To go on: {typed('train.py')} --resume {quoted(path)}")
        else:
            LOG.info("No epoch is complete yet, so there is no checkpoint to go on from.")


class ReadOnlyRunDir(RunDir):
    """The folder of a run for a process that another one writes for."""

    def open(
        self, opt: Namespace, hyp: Hyp, epoch: int = 0, identity: Mapping[str, Any] | None = None
    ) -> None:
        """Write nothing."""

    def write_row(self, row: dict[str, float]) -> None:
        """Write nothing."""
        self.row = row

    def save(self, content: dict[str, Any], *, best: bool, period: int = -1) -> None:
        """Write nothing."""

    def say_how_to_resume(self) -> None:
        """Leave it to the process that writes."""


def quoted(path: str) -> str:
    """A path as an argument on a command line."""
    return f'"{path}"' if " " in path or os.sep == "\\" else path


def table_row(
    epoch: int, losses: Sequence[float], result: EvalResult | None, optimizer: Optimizer
) -> dict[str, float]:
    """An epoch's row of results.csv; what was not measured is NaN."""
    measured = result.results if result is not None else [math.nan] * len(METRICS)
    rates = [group["lr"] for group in optimizer.param_groups[:3]]  # those of new layers are a multiple
    return dict(zip(COLUMNS, (epoch, *losses, *measured, *rates), strict=True))


class Closable(Protocol):
    """Something with worker processes."""

    def close(self) -> None:
        """End them."""


@contextmanager
def guard(run: RunDir, loaders: Closable, callbacks: Callbacks) -> Iterator[None]:
    """Whatever ends the training: say how to go on, end the worker processes, tell the callbacks."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        run.say_how_to_resume()
        raise
    except DivergedError as error:
        kept = f". {relative_to_cwd(run.last)} is from before that" if run.last.exists() else ""
        raise DivergedError(f"{error}{kept}") from error
    except torch.OutOfMemoryError as error:
        run.say_how_to_resume()
        raise YoloError("out of GPU memory: lower --batch-size or --imgsz") from error
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        run.say_how_to_resume()
        raise YoloError(
            f"a process that loads images ended ({error}); if memory was short, lower --workers or --cache"
        ) from error
    finally:
        loaders.close()
        callbacks.teardown()
