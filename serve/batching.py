"""Requests that arrive together are worked on together: one queue and one thread for each model.

Nothing here knows of images or networks: jobs of one `key` are handed to a function as a list, which
returns as many results.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from serve.errors import busy
from utils.base.errors import one_line
from utils.base.log import LOG

InferenceTask = TypeVar("InferenceTask")
Result = TypeVar("Result")


@dataclass(eq=False)  # jobs hold arrays, which do not compare to one truth
class _Job(Generic[InferenceTask, Result]):
    task: InferenceTask
    key: Hashable
    future: Future[tuple[Result, float]]
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[InferenceTask, Result]):
    """Collects jobs, and works on those of one key together in a thread of its own.

    The first job in the queue waits at most `max_wait` seconds for others of its key; those that come
    while the thread is busy are collected anyway.

    Args:
        work: tasks of one key -> their results, in order. An exception goes to all of them.
        name: of the thread, and in messages.
        max_batch: most jobs worked on together.
        max_wait: seconds.
        places: most callers that may be under way, see `place`.
        on_batch: told the size of each batch, in the thread.
    """

    def __init__(
        self,
        work: Callable[[Sequence[InferenceTask]], Sequence[Result]],
        name: str,
        *,
        max_batch: int,
        max_wait: float,
        places: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._work = work
        self._name = name
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._places = places
        self._taken = 0
        self._on_batch = on_batch
        self._jobs: deque[_Job[InferenceTask, Result]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"model-{name}", daemon=True)
        self._thread.start()

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a place from before the upload is read until the answer is made: it bounds memory, too.

        Raises:
            RequestError: all are taken, or the server is stopping.
        """
        with self._changed:
            if self._closing:
                raise busy("the server is stopping")
            if self._taken >= self._places:
                raise busy(f"{self._name} has {self._places} requests under way already")
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1

    def submit(self, task: InferenceTask, key: Hashable) -> Future[tuple[Result, float]]:
        """Queue a task; the future gives its result, and the seconds that it waited.

        Cancel the future of a job that is still queued, and it will not be worked on.

        Raises:
            RequestError: as many jobs wait as there are places, or the server is stopping.
        """
        job: _Job[InferenceTask, Result] = _Job(task, key, Future())
        with self._changed:
            if self._closing or len(self._jobs) >= self._places:
                raise busy(
                    "the server is stopping" if self._closing else f"the queue of {self._name} is full"
                )
            self._jobs.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._forget(job) if future.cancelled() else None)
        return job.future

    @property
    def waiting(self) -> int:
        """Jobs in the queue."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether jobs are being worked on."""
        return self._thread.is_alive() and not self._closing

    def close(self, timeout: float = 10) -> None:
        """Work off the queue, then end the thread; wait for that at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _forget(self, job: _Job[InferenceTask, Result]) -> None:
        """Free the place of a cancelled job in the queue."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._changed.notify()

    def _run(self) -> None:
        while batch := self._next():
            started = time.monotonic()
            self._on_batch(len(batch))
            try:
                results = self._work([job.task for job in batch])
            except Exception as error:  # whatever it is, those who wait have to hear of it
                LOG.error(f"{self._name}: {type(error).__name__}: {one_line(error)}")
                for job in batch:
                    job.future.set_exception(error)
                continue
            for job, result in zip(batch, results, strict=True):
                job.future.set_result((result, started - job.arrived))

    def _next(self) -> list[_Job[InferenceTask, Result]]:
        """Wait for the next batch; empty when closed and nothing is left."""
        with self._changed:
            while True:
                if not self._jobs:
                    if self._closing:
                        return []
                    self._changed.wait()
                    continue
                first = self._jobs[0]
                alike = [job for job in self._jobs if job.key == first.key][: self._max_batch]
                left = first.arrived + self._max_wait - time.monotonic()
                if len(alike) < self._max_batch and left > 0 and not self._closing:
                    self._changed.wait(left)
                    continue
                for job in alike:
                    self._jobs.remove(job)
                if started := [job for job in alike if job.future.set_running_or_notify_cancel()]:
                    return started
