"""The folder of a run: its options, its table of results, its checkpoints."""

from __future__ import annotations

import csv
import os
import shutil
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from models.weights import save_checkpoint, strip_checkpoint
from utils.base.errors import DataError
from utils.base.log import LOG, color
from utils.base.paths import atomic_write, increment_path, relative_to_cwd
from utils.base.yaml_io import write_yaml
from utils.train.hyp import Hyp

COLUMNS = (
    "epoch",
    *("train/box_loss", "train/obj_loss", "train/cls_loss"),
    *("metrics/precision", "metrics/recall", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss"),
    *("x/lr0", "x/lr1", "x/lr2"),
)
METRICS = COLUMNS[4:11]


@dataclass(frozen=True)
class TrainResult:
    """What a training gives back to a caller."""

    save_dir: Path
    epochs: int  # trained by this call
    fitness: float  # of best.pt, or of the last validation where there is none
    metrics: dict[str, float] = field(default_factory=dict)  # by the names of results.csv
    best: Path | None = None
    last: Path | None = None


class RunFolder:
    """Files of a run: weights/{last,best,epochN}.pt, opt.yaml, hyp.yaml, results.csv."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.last = folder / "weights" / "last.pt"
        self.best = folder / "weights" / "best.pt"
        self.table = folder / "results.csv"

    @classmethod
    def choose(cls, opt: Namespace) -> RunFolder:
        """The first free folder for a new run, or that of the run which is resumed."""
        if opt.resume:
            return cls(Path(opt.save_dir))
        name = Path(opt.cfg).stem if opt.name == "cfg" and opt.cfg else opt.name
        return cls(increment_path(Path(opt.project) / name, exist_ok=opt.exist_ok))

    def __str__(self) -> str:
        return relative_to_cwd(self.folder)

    def open(self, opt: Namespace, hyp: Hyp, identity: dict[str, Any], epoch: int) -> None:
        """Make the folder, write the options, and keep the rows of the table before `epoch`.

        Raises:
            DataError: the folder cannot be written.
        """
        try:
            self.last.parent.mkdir(parents=True, exist_ok=True)
            options = {key: value for key, value in vars(opt).items() if key != "given"}
            options.update(hyp=hyp, save_dir=str(self.folder), resume=False, identity=identity)
            write_yaml(self.folder / "opt.yaml", options)
            write_yaml(self.folder / "hyp.yaml", dict(hyp))
            self._keep_rows(epoch)
        except OSError as error:
            raise DataError(f"{self}: cannot write the run folder ({error.strerror}); choose --project") from error

    def _keep_rows(self, epoch: int) -> None:
        """Drop rows that the run is about to write again: all of them in a new run."""
        rows: list[list[str]] = []
        if epoch and self.table.exists():
            with self.table.open(newline="") as file:
                rows = [row for row in list(csv.reader(file))[1:] if row and float(row[0]) < epoch]
        with atomic_write(self.table, "w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])

    def write_row(self, row: dict[str, float]) -> None:
        """Append an epoch to the table."""
        with self.table.open("a", newline="") as file:
            csv.writer(file, lineterminator="\n").writerow(f"{row[name]:.6g}" for name in COLUMNS)

    def save(self, content: dict[str, Any], epoch: int, *, best: bool, period: int) -> list[Path]:
        """Write last.pt, and copies of it as best.pt and epochN.pt when due; return what was written."""
        written = [self.last]
        save_checkpoint(self.last, content)
        if best:
            written.append(self.best)
        if period > 0 and epoch % period == 0:
            written.append(self.last.with_name(f"epoch{epoch}.pt"))
        for path in written[1:]:
            with self.last.open("rb") as source, atomic_write(path) as target:
                shutil.copyfileobj(source, target)
        return written

    def strip(self) -> None:
        """Reduce last.pt and best.pt to what inference needs."""
        for path in (self.last, self.best):
            if path.exists():
                strip_checkpoint(path)
                size = path.stat().st_size / 1e6
                LOG.info(f"Optimizer stripped from {relative_to_cwd(path)}, {size:.1f}MB")

    def say_how_to_resume(self) -> None:
        """Print the command that goes on from the newest checkpoint."""
        if self.last.exists():
            LOG.info(f"To go on from here: python train.py --resume {_quoted(self.last)}")
        else:
            LOG.info(f"{color(str(self), 'bold')} holds no checkpoint yet: the run starts anew next time")


def _quoted(path: Path) -> str:
    text = relative_to_cwd(path)
    return f'"{text}"' if " " in text or os.sep == "\\" else text
