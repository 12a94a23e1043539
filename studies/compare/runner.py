"""Train and measure the runs of a comparison, each in processes of its own, several at a time."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from studies.compare.measure_run import MEASURED
from studies.compare.run_plan import Run
from studies.jobs.ray_cluster import LostError
from studies.jobs.training import is_trained, training_command
from utils.base.errors import YoloError
from utils.base.log import LOG
from utils.base.paths import atomic_write, relative_to_cwd
from utils.base.processes import LOG_FILE, Children, Machine, last_line, lock_folder, module_command
from utils.base.progress import Bar


class Runner:
    """Bring runs to their measured.json; what is there already is left alone.

    Args:
        project: folder of all comparisons; runs are below it.
        machine: threads and devices.
    """

    def __init__(self, project: Path, machine: Machine) -> None:
        self.project = project
        self.machine = machine
        self._children = Children()

    def __call__(self, run: Run) -> None:
        """Train (or go on training) and measure one run.

        Raises:
            YoloError: a process failed; its last line is in the message.
        """
        folder = run.save(self.project)
        with self.machine.device() as device, lock_folder(folder) as held:
            if is_measured(folder):  # by another comparison that had the folder until now
                return
            (folder / "device.txt").write_text(device)
            with _counted_minutes(folder):
                if not is_trained(folder, run.train):
                    self._call(training_command(folder, run.train, device), folder, run, held)
                self._call(module_command("studies.compare.measure_run", str(folder)), folder, run, held)

    def stop(self) -> None:
        """End the processes that are running; train.py saves what it has."""
        self._children.stop()

    def _call(self, command: Sequence[str], folder: Path, run: Run, held: Sequence[int]) -> None:
        status = self._children.call(command, folder, self.machine.threads, held)
        if status < 0:
            raise LostError(f"{run.label}, seed {run.seed}: killed by signal {-status}")
        if status:
            file = relative_to_cwd(folder / LOG_FILE)
            raise YoloError(
                f"{run.label}, seed {run.seed}: failed ({last_line(folder / LOG_FILE)}); see {file}"
            )


class Worker(Protocol):
    """Who brings runs to their measured.json."""

    def __call__(self, run: Run) -> None:
        """Train and measure one run; called from several threads."""
        ...

    def stop(self) -> None:
        """End what is under way, from another thread."""
        ...


def train_all(runs: Sequence[Run], project: Path, make_worker: Callable[[], Worker], jobs: int) -> None:
    """Have all runs done that are not measured yet, `jobs` at a time.

    Args:
        runs: of a comparison.
        project: folder of all comparisons.
        make_worker: gives who does the work; called if there is any.
        jobs: runs at the same time.

    Raises:
        YoloError: a run failed; others that were under way are finished, none is begun.
    """
    open_runs = [run for run in runs if not is_measured(run.folder(project))]
    if len(open_runs) < len(runs):
        LOG.info(f"{len(runs) - len(open_runs)} of {len(runs)} runs are there already")
    if not open_runs:
        return
    LOG.info(f"training {len(open_runs)} runs, {jobs} at a time, in {relative_to_cwd(project / 'runs')}")
    started, work = time.monotonic(), make_worker()
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(work, run): run for run in open_runs}
        try:
            for count, run in enumerate(Bar(_finished(futures), total=len(open_runs)), 1):
                left = (time.monotonic() - started) / 60 * (len(open_runs) - count) / count
                LOG.info(f"{count}/{len(open_runs)} {describe(run, project)}, about {left:.0f} min left")
        except BaseException:
            for future in futures:
                future.cancel()
            if not isinstance(sys.exc_info()[1], YoloError):
                LOG.warning("stopping; the same command goes on from here")
                work.stop()
            raise


def _finished(futures: dict[Future[None], Run]) -> Iterator[Run]:
    """Runs as they are finished; the first failure ends it."""
    waiting = set(futures)
    while waiting:
        done, waiting = wait(waiting, timeout=1.0, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
            yield futures[future]


def describe(run: Run, project: Path) -> str:
    """A finished run in words."""
    content = read_measured(run.folder(project))
    figures = content["figures"]["best"]["val"]
    return (
        f"{run.label}, seed {run.seed}: mAP50 {figures['mAP50']:.3f}, mAP50-95 {figures['mAP']:.3f} "
        f"in {content.get('minutes', 0):.1f} min"
    )


def is_measured(folder: Path) -> bool:
    """Whether a run is complete."""
    return (folder / MEASURED).is_file()


def read_measured(folder: Path) -> dict[str, Any]:
    """What was measured of a run."""
    content: dict[str, Any] = json.loads((folder / MEASURED).read_text(encoding="utf-8"))
    return content


@contextmanager
def _counted_minutes(folder: Path) -> Iterator[None]:
    """Add the time that this takes to what earlier, stopped attempts took, and to the measurements."""
    file, mark, started = folder / "minutes.txt", folder / "begun", time.monotonic()
    earlier = float(file.read_text()) if file.is_file() else 0.0
    if mark.exists():  # an attempt was killed: it worked at least until its last checkpoint
        last = folder / "weights" / "last.pt"
        worked = last.stat().st_mtime - mark.stat().st_mtime if last.is_file() else 0.0
        earlier += max(worked, 0.0) / 60
        file.write_text(f"{earlier:.3f}")
    mark.write_text("")
    try:
        yield
    finally:
        minutes = earlier + (time.monotonic() - started) / 60
        file.write_text(f"{minutes:.3f}")
        mark.unlink()
    content = read_measured(folder) | {"minutes": round(minutes, 2)}
    with atomic_write(folder / MEASURED, "w", encoding="utf-8") as out:
        json.dump(content, out, indent=1)
