"""Thread pools: images through the model side by side, and a bounded queue of writing jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import TypeVar

import torch

from utils.base.errors import one_line
from utils.base.log import LOG
from utils.base.processes import usable_cores
from utils.sources.prefetch import finished, in_turn

T = TypeVar("T")
R = TypeVar("R")

MOST = 8  # workers; each holds the maps of an image, and Python has one lock for all of them
MAX_IO_THREADS = 4  # threads that read and write for another device, at most


class WorkerPool:
    """How many images a device looks at side by side, and the threads that serve them.

    Args:
        device: where the model is; workers are for the CPU, other devices have a queue of their own.
        most: images or batches that can be had at a time; 1 leaves all cores to each.
    """

    def __init__(self, device: torch.device, most: int = MOST) -> None:
        self.device = device
        self.count = max(min(torch.get_num_threads(), most, MOST), 1) if device.type == "cpu" else 1

    @contextmanager
    def pool(self) -> Iterator[Executor | None]:
        """Threads for all kinds of work: one for each worker; a few beside another device; else none."""
        if self.count == 1:
            if self.device.type == "cpu":  # the model has all cores
                yield None
                return
            with ThreadPoolExecutor(min(MAX_IO_THREADS, usable_cores()), "servant") as pool:
                yield pool
            return
        threads = torch.get_num_threads()
        share = partial(torch.set_num_threads, max(threads // self.count, 1))
        try:
            with ThreadPoolExecutor(self.count, "worker", initializer=share) as pool:
                yield pool
        finally:
            torch.set_num_threads(threads)  # the share is every new thread's, too

    def map(
        self, work: Callable[[T], R], items: Iterable[T], pool: Executor | None
    ) -> Generator[R, None, None]:
        """Yield `work(item)` for each of `items`, in their order; a single worker is the caller's thread.

        An exception is raised in its turn.
        """
        if self.count == 1:
            yield from map(work, items)
            return
        for future in in_turn(work, items, pool, self.count):
            yield future.result()


class BoundedExecutor:
    """Jobs without a result; a context manager that ends when all of them are done.

    An error of a job is raised by a later `do`, or at the end; if the block ends with an exception of its
    own, it is logged instead.

    Args:
        pool: threads; with one of them the jobs are done in their order. None: the caller does them, now.
        most: jobs that may be unfinished; then the caller waits.
    """

    def __init__(self, pool: Executor | None, most: int) -> None:
        self._pool = pool
        self._most = most
        self._unfinished: deque[Future[None]] = deque()

    def do(self, job: Callable[[], None]) -> None:
        """Have a job done; wait while too many are unfinished."""
        if self._pool is None:
            job()
            return
        while self._unfinished and (len(self._unfinished) >= self._most or self._unfinished[0].done()):
            finished(self._unfinished.popleft()).result()
        self._unfinished.append(self._pool.submit(job))

    def __enter__(self) -> BoundedExecutor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failures = [failure for job in self._unfinished if (failure := finished(job).exception())]
        if failures and kind is None:
            raise failures[0]
        for failure in failures[:1]:
            LOG.error(one_line(failure))
