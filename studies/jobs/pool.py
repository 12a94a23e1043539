"""Run several jobs at a time, on this machine or on a cluster."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from studies.jobs.job import Job
from studies.jobs.local_runner import LocalRunner
from studies.jobs.ray_runner import RayRunner

T = TypeVar("T")
_POLL = 1.0  # seconds between two checks of the running jobs


class Runner(Protocol):
    """Interface of `LocalRunner` and `RayRunner`."""

    jobs: int  # jobs at the same time

    def __call__(self, job: Job[T]) -> T:
        """Run one job and wait for it; called from several threads."""
        ...

    def stop(self) -> None:
        """End the running jobs, from another thread."""
        ...


def make_runner(home: Path, jobs: int, device: str, threads: int = 0, ray: str | None = None) -> Runner:
    """Make a runner for the Ray cluster at `ray`, or for this machine if that is None or empty."""
    if ray:
        return RayRunner(home, ray, jobs, device, threads)
    return LocalRunner(home, max(jobs, 1), device, threads)


class JobPool(Generic[T]):
    """Pool of running and waiting jobs, with as many threads as the runner runs jobs at a time.

    Leaving the context waits for the running jobs.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._threads = ThreadPoolExecutor(runner.jobs)
        self._futures: dict[Future[T], Job[T]] = {}

    def __enter__(self) -> JobPool[T]:
        return self

    def __exit__(self, *error: object) -> None:
        self._threads.shutdown()

    def __len__(self) -> int:
        return len(self._futures)

    @property
    def jobs(self) -> list[Job[T]]:
        """Jobs that have no result yet, in the order of `submit`."""
        return list(self._futures.values())

    def submit(self, job: Job[T]) -> None:
        """Run a job as soon as a thread is free."""
        self._futures[self._threads.submit(self._runner, job)] = job

    def finished(self) -> list[tuple[Job[T], Future[T]]]:
        """Wait for a second at most; return and forget the jobs that have ended meanwhile."""
        done, _ = wait(self._futures, timeout=_POLL, return_when=FIRST_COMPLETED)
        return [(self._futures.pop(future), future) for future in done]

    def cancel(self) -> None:
        """Drop the jobs that are waiting for a thread."""
        for future in self._futures:
            future.cancel()

    def stop(self) -> None:
        """Drop the waiting jobs, and end the running ones."""
        self.cancel()
        self._runner.stop()
