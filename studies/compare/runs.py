"""The runs that a comparison trains: one for each model and seed, shared by all comparisons of a project."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from studies.jobs.job import Job
from studies.jobs.pool import JobPool, Runner
from utils.base.errors import YoloError
from utils.base.log import LOG, Bar
from utils.base.paths import atomic_write, relative_to_cwd
from utils.base.processes import LOG_FILE, module_command

RUN, MEASURED = "run.json", "measured.json"
Measured = dict[str, Any]  # content of measured.json


@dataclass(frozen=True)
class Run(Job[Measured]):
    """Training of one model with one seed."""

    label: str
    seed: int
    key: str  # digest of everything that decides the result
    train: tuple[str, ...]  # flags of train.py, except those of the folder, device and threads
    splits: tuple[str, ...]  # to be measured
    settings: dict[str, Any]  # what `key` is the digest of

    returned_files = ("results.csv", LOG_FILE, "weights/best.pt", "weights/last.pt", MEASURED)

    @property
    def title(self) -> str:
        return f"{self.label}, seed {self.seed}"

    def folder(self, home: Path) -> Path:
        return home / "runs" / f"{self.key[:16]}"

    def train_flags(self, home: Path) -> tuple[str, ...]:
        return self.train

    def measure_command(self, home: Path) -> list[str]:
        return module_command("studies.compare.measure", str(self.folder(home)))

    def save(self, home: Path) -> Path:
        folder = self.folder(home)
        folder.mkdir(parents=True, exist_ok=True)
        content = asdict(self)
        content["facts"] = content.pop("settings")  # the name in the file format
        (folder / RUN).write_text(json.dumps(content, indent=1), encoding="utf-8")
        return folder

    def completed(self, home: Path) -> Measured | None:
        file = self.folder(home) / MEASURED
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def finish(self, home: Path, minutes: float) -> Measured:
        measured = self.measured(home) | {"minutes": round(minutes, 2)}
        with atomic_write(self.folder(home) / MEASURED, "w", encoding="utf-8") as file:
            json.dump(measured, file, indent=1)
        return measured

    def measured(self, home: Path) -> Measured:
        """Return the measurements of a complete run."""
        measured = self.completed(home)
        assert measured is not None
        return measured

    def weights(self, home: Path) -> Path:
        """Return the path of the best weights."""
        return self.folder(home) / "weights" / "best.pt"


def train_all(runs: Sequence[Run], project: Path, make_runner: Callable[[], Runner]) -> None:
    """Train and measure the runs that are not complete yet.

    Args:
        runs: of a comparison.
        project: folder of all comparisons.
        make_runner: called only if there is anything to train.

    Raises:
        YoloError: a run failed; runs that were started are finished, no other is started.
    """
    missing = [run for run in runs if run.completed(project) is None]
    if len(missing) < len(runs):
        LOG.info(f"{len(runs) - len(missing)} of {len(runs)} runs are complete already")
    if not missing:
        return
    started, runner = time.monotonic(), make_runner()
    count, folder = len(missing), relative_to_cwd(project / "runs")
    LOG.info(f"training {count} runs, {runner.jobs} at a time, in {folder}")
    with JobPool[Measured](runner) as pool:
        for run in missing:
            pool.submit(run)
        try:
            for done, (title, measured) in enumerate(Bar(_finished(pool), total=count), 1):
                left = (time.monotonic() - started) / 60 * (count - done) / done
                LOG.info(f"{done}/{count} {title}: {_describe(measured)}, about {left:.0f} min left")
        except YoloError:
            pool.cancel()
            raise
        except BaseException:
            LOG.warning("stopping; the same command resumes the comparison")
            pool.stop()
            raise


def _finished(pool: JobPool[Measured]) -> Iterator[tuple[str, Measured]]:
    """Yield the titles and results of runs as they end; the first failure is raised."""
    while pool:
        for run, future in pool.finished():
            yield run.title, future.result()


def _describe(measured: Measured) -> str:
    best = measured["figures"]["best"]["val"]
    minutes = measured.get("minutes", 0.0)
    return f"mAP50 {best['mAP50']:.3f}, mAP50-95 {best['mAP']:.3f} in {minutes:.1f} min"
