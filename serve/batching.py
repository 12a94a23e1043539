"""Dynamic batching: a queue and a thread per model, which processes several requests at once.

Independent of images, networks and HTTP: tasks with equal keys are passed to a function as a list, which
returns a result for each.
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

from utils.base.errors import one_line
from utils.base.log import LOG

Task = TypeVar("Task")
Result = TypeVar("Result")


class BusyError(Exception):
    """The request cannot be accepted now, but may be later."""


@dataclass(eq=False)  # tasks hold arrays, which `==` compares by element
class _Job(Generic[Task, Result]):
    task: Task
    key: Hashable
    future: Future[tuple[Result, float]]
    arrived: float = field(default_factory=time.monotonic)


class Batcher(Generic[Task, Result]):
    """Queue that collects tasks with equal keys into batches, and a thread that processes these.

    The first task in the queue waits at most `max_wait` seconds for others with its key; those that arrive
    while the thread is busy are batched in any case.

    Args:
        process: function from tasks with equal keys to their results, in order. An exception is passed on
            to all of them.
        name: name of the model, for the thread and messages.
        max_batch: maximum batch size.
        max_wait: seconds.
        max_requests: maximum number of requests in progress, see `slot`.
        on_batch: called with the size of each batch, in the thread.
    """

    def __init__(
        self,
        process: Callable[[Sequence[Task]], Sequence[Result]],
        name: str,
        *,
        max_batch: int,
        max_wait: float,
        max_requests: int,
        on_batch: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._process = process
        self._name = name
        self._max_batch = max_batch
        self._max_wait = max_wait
        self._max_requests = max_requests
        self._active = 0
        self._on_batch = on_batch
        self._jobs: deque[_Job[Task, Result]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name=f"model-{name}", daemon=True)
        self._thread.start()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Count a request as in progress, from before its upload is read to its response.

        The limit bounds the memory that uploads take, too.

        Raises:
            BusyError: `max_requests` are in progress, or the server is stopping.
        """
        with self._changed:
            if self._closing:
                raise BusyError("the server is stopping")
            if self._active >= self._max_requests:
                raise BusyError(f"{self._name} is processing {self._max_requests} requests already")
            self._active += 1
        try:
            yield
        finally:
            with self._changed:
                self._active -= 1

    def submit(self, task: Task, key: Hashable) -> Future[tuple[Result, float]]:
        """Queue a task; return a future of its result and the seconds that it waited.

        Cancelling the future removes the task from the queue.

        Raises:
            BusyError: `max_requests` tasks are waiting, or the server is stopping.
        """
        job: _Job[Task, Result] = _Job(task, key, Future())
        with self._changed:
            if self._closing:
                raise BusyError("the server is stopping")
            if len(self._jobs) >= self._max_requests:
                raise BusyError(f"the queue of {self._name} is full")
            self._jobs.append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._remove(job) if future.cancelled() else None)
        return job.future

    @property
    def waiting(self) -> int:
        """Number of tasks in the queue."""
        return len(self._jobs)

    @property
    def alive(self) -> bool:
        """Whether tasks are being processed."""
        return self._thread.is_alive() and not self._closing

    def close(self, timeout: float = 10) -> None:
        """Process what is queued, then stop the thread; wait for that at most `timeout` seconds."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join(timeout)

    def _remove(self, job: _Job[Task, Result]) -> None:
        """Remove a cancelled job from the queue."""
        with self._changed:
            if job in self._jobs:
                self._jobs.remove(job)
                self._changed.notify()

    def _run(self) -> None:
        while batch := self._next_batch():
            started = time.monotonic()
            self._on_batch(len(batch))
            try:
                results = self._process([job.task for job in batch])
            except Exception as error:  # of any kind: the waiting requests need an answer
                LOG.error(f"{self._name}: {type(error).__name__}: {one_line(error)}")
                for job in batch:
                    job.future.set_exception(error)
                continue
            for job, result in zip(batch, results, strict=True):
                job.future.set_result((result, started - job.arrived))

    def _next_batch(self) -> list[_Job[Task, Result]]:
        """Wait for the next batch; return an empty one when closed and nothing is left."""
        with self._changed:
            while True:
                if not self._jobs:
                    if self._closing:
                        return []
                    self._changed.wait()
                    continue
                first = self._jobs[0]
                batch = [job for job in self._jobs if job.key == first.key][: self._max_batch]
                remaining = first.arrived + self._max_wait - time.monotonic()
                if len(batch) < self._max_batch and remaining > 0 and not self._closing:
                    self._changed.wait(remaining)
                    continue
                for job in batch:
                    self._jobs.remove(job)
                if started := [job for job in batch if job.future.set_running_or_notify_cancel()]:
                    return started
