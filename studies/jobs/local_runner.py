"""Run jobs on this machine, each in subprocesses; a job that was started before is resumed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from studies.jobs.job import DEVICE, FailedError, Job, KilledError, LostError, counted_minutes
from utils.base.paths import SCRIPTS, relative_to_cwd
from utils.base.processes import LOG_FILE, Children, last_line, lock_folder, share_machine
from utils.tasks.task import get_task

T = TypeVar("T")
_ENDED = (-15, -2, 130, 143)  # exit statuses of a process that was asked to end


class LocalRunner:
    """Runner of jobs on this machine; complete jobs are skipped.

    Args:
        home: folder that holds the folders of all jobs.
        jobs: jobs at the same time.
        device: as `--device`; several devices are shared out among the jobs.
        threads: CPU threads of each job; 0: cores / jobs.
    """

    def __init__(self, home: Path, jobs: int, device: str = "", threads: int = 0) -> None:
        self.home = home
        self.jobs = jobs
        self._machine = share_machine(jobs, device, threads)
        self._children = Children()

    def __call__(self, job: Job[T]) -> T:
        """Train and measure one job, or resume it; called from several threads.

        Raises:
            FailedError: a process failed, and the job does not count this as a result.
            LostError: a process was killed or asked to end.
        """
        folder = job.save(self.home)
        with self._machine.device() as device, lock_folder(folder) as lock:
            result = job.completed(self.home)
            if result is not None:  # another process has completed it meanwhile
                return result
            (folder / DEVICE).write_text(device)
            try:
                with counted_minutes(folder, last_checkpoint(job.train_folder(self.home))) as minutes:
                    self._run(job, folder, device, lock)
                    return job.finish(self.home, minutes.total)
            except FailedError as error:
                return job.fail(self.home, error)

    def stop(self) -> None:
        """Send SIGTERM to the running processes, and wait; train.py saves a checkpoint first."""
        self._children.stop()

    def _run(self, job: Job[T], folder: Path, device: str, lock: Sequence[int]) -> None:
        trained, flags = job.train_folder(self.home), job.train_flags(self.home)
        commands = []
        if not is_trained(trained, flags, job.task):
            commands.append(training_command(trained, flags, device, job.task))
        if measure := job.measure_command(self.home):
            commands.append(measure)
        for command in commands:
            status = self._children.call(command, folder, self._machine.threads, lock)
            log = relative_to_cwd(folder / LOG_FILE)
            if status in _ENDED:
                raise LostError(job.title, f"was asked to end; see {log}")
            if status < 0:
                raise KilledError(job.title, f"killed by signal {-status}")
            if status:
                reason = last_line(folder / LOG_FILE).removeprefix("ERROR: ")
                raise FailedError(job.title, reason, status, log)


def training_command(folder: Path, flags: Sequence[str], device: str = "", task: str = "detect") -> list[str]:
    """Return the command that trains in `folder`, or resumes its last checkpoint.

    Args:
        folder: of the run.
        flags: of train.py, except those of the folder and the device.
        device: as `--device`.
        task: name of the task.
    """
    train = [sys.executable, str(SCRIPTS / get_task(task).scripts[0])]
    last = last_checkpoint(folder)
    chosen = ["--device", device] if device else []
    if last.is_file():
        return [*train, "--resume", str(last), *chosen]
    output = ["--project", str(folder.parent), "--name", folder.name, "--exist-ok", "--noplots"]
    return [*train, "--loggers", "none", *flags, *output, *chosen]  # `flags` may ask for other loggers


def is_trained(folder: Path, flags: Sequence[str], task: str = "detect") -> bool:
    """Return whether the training in `folder` is finished: all epochs are done, or it cannot be resumed."""
    from models.weights import read_checkpoint

    last = last_checkpoint(folder)
    if not last.is_file():
        return False
    checkpoint = read_checkpoint(last)
    epochs = get_task(task).parse_train_options(flags).epochs
    return checkpoint.training is None or checkpoint.epoch + 1 >= epochs


def last_checkpoint(folder: Path) -> Path:
    """Return the path of the last checkpoint of a training."""
    return folder / "weights" / "last.pt"
