"""Threads that run batches side by side on a CPU, read images ahead, and write files."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import torch

from utils.base.errors import one_line
from utils.base.log import LOG
from utils.base.processes import usable_cores

T = TypeVar("T")
R = TypeVar("R")

MAX_WORKERS = 8  # each holds the feature maps of a batch, and all share Python's lock
MAX_IO_THREADS = 4  # beside a GPU
_POLL = 0.2  # seconds; short waits, as on some platforms Ctrl-C does not interrupt a wait


class WorkerPool:
    """The threads of one run, for reading, inference and writing; a context manager.

    On a CPU `count` batches go through the model side by side, each with an equal share of PyTorch's
    threads; with a `count` of 1 the model has all cores, and everything runs in the caller's thread. On
    other devices one batch runs at a time, in the caller's thread, and a few threads read and write files.

    Args:
        device: where the model is.
        most: upper limit of `count`.

    Attributes:
        count: batches that are run side by side.
    """

    def __init__(self, device: torch.device, most: int = MAX_WORKERS) -> None:
        self.device = device
        self.count = max(min(torch.get_num_threads(), most, MAX_WORKERS), 1) if device.type == "cpu" else 1
        self._threads: ThreadPoolExecutor | None = None
        self._torch_threads = torch.get_num_threads()

    def __enter__(self) -> WorkerPool:
        if self.count > 1:
            share = max(self._torch_threads // self.count, 1)
            set_share = partial(torch.set_num_threads, share)
            self._threads = ThreadPoolExecutor(self.count, "worker", initializer=set_share)
        elif self.device.type != "cpu":
            self._threads = ThreadPoolExecutor(min(MAX_IO_THREADS, usable_cores()), "reader-writer")
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if self._threads is not None:
                self._threads.shutdown()
        finally:
            self._threads = None
            if self.count > 1:
                torch.set_num_threads(self._torch_threads)  # new threads would inherit the share

    def submit(self, function: Callable[..., R], *args: Any) -> Future[R]:
        """Call a function in a thread of the pool; without threads, now."""
        return self._threads.submit(function, *args) if self._threads else run_now(function, *args)

    def map(self, function: Callable[[T], R], items: Iterable[T]) -> Generator[R, None, None]:
        """Yield `function(item)` for each of `items`, in order, `count` at a time.

        An exception is raised where its result would be yielded. A `count` of 1 runs in this thread.
        """
        if self.count == 1:
            yield from map(function, items)
            return
        for _, future in self.in_order(partial(self.submit, function), items, self.count):
            yield future.result()

    def in_order(
        self, start: Callable[[T], Future[R]], items: Iterable[T], ahead: int
    ) -> Generator[tuple[T, Future[R]], None, None]:
        """Yield each item with its finished future, in order; closing this generator cancels the others.

        Args:
            start: called with each item in this thread; returns its future, as `submit` does.
            items: taken in this thread.
            ahead: futures that are started before the first is waited for; without threads 0.
        """
        pending: deque[tuple[T, Future[R]]] = deque()
        try:
            for item in items:
                pending.append((item, start(item)))
                if len(pending) > (ahead if self._threads else 0):
                    yield _finished(*pending.popleft())
            while pending:
                yield _finished(*pending.popleft())
        finally:
            for _, future in pending:
                future.cancel()

    @contextmanager
    def job_queue(self, most: int, *, ordered: bool = False) -> Iterator[JobQueue]:
        """Open a queue of jobs that these threads do; see `JobQueue`.

        Args:
            most: jobs that may be unfinished.
            ordered: do them one after another, in a thread of their own.
        """
        if self._threads is None or not ordered:
            with JobQueue(self._threads, most) as jobs:
                yield jobs
            return
        with ThreadPoolExecutor(1, "writer") as thread, JobQueue(thread, most) as jobs:
            yield jobs


class JobQueue:
    """Bounded queue of jobs that return nothing; a context manager that ends when all of them are done.

    An error of a job is raised by a later `put`, or at the end; if the block ends with an exception of its
    own, it is logged instead.

    Args:
        pool: threads; None: jobs are done by the caller, at once.
        most: jobs that may be unfinished; `put` waits for the oldest while there are as many.
    """

    def __init__(self, pool: Executor | None, most: int) -> None:
        self._pool = pool
        self._most = most
        self._unfinished: deque[Future[None]] = deque()

    def put(self, job: Callable[[], None]) -> None:
        """Add a job; wait while too many are unfinished."""
        if self._pool is None:
            job()
            return
        while self._unfinished and (len(self._unfinished) >= self._most or self._unfinished[0].done()):
            _wait_for(self._unfinished.popleft()).result()
        self._unfinished.append(self._pool.submit(job))

    def __enter__(self) -> JobQueue:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failures = [failure for job in self._unfinished if (failure := _wait_for(job).exception())]
        if failures and kind is None:
            raise failures[0]
        for failure in failures[:1]:
            LOG.error(one_line(failure))


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items`, of which a thread makes `depth` in advance.

    An exception of `items` is raised here, after the items before it. When this generator is closed, the
    thread ends, and `items` is closed too if it is a generator.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()
    thread = threading.Thread(target=_fill, args=(items, ready, stop), name="prefetch", daemon=True)
    thread.start()
    try:
        while True:
            try:
                is_item, value = ready.get(timeout=_POLL)
            except queue.Empty:
                continue
            if is_item:
                yield value  # type: ignore[misc]
            elif value is None:
                return
            else:
                raise value  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(timeout=5)  # a decoder that hangs must not block the exit


def run_now(function: Callable[..., R], *args: Any) -> Future[R]:
    """Call a function in this thread; return a future with its result or exception."""
    future: Future[R] = Future()
    try:
        future.set_result(function(*args))
    except Exception as error:  # raised again by `future.result()`
        future.set_exception(error)
    return future


def _finished(item: T, future: Future[R]) -> tuple[T, Future[R]]:
    return item, _wait_for(future)


def _wait_for(future: Future[R]) -> Future[R]:
    while not wait([future], timeout=_POLL).done:
        pass
    return future


def _fill(items: Iterator[T], ready: queue.Queue, stop: threading.Event) -> None:
    end: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, (True, item), stop):
                break
    except BaseException as error:  # raised again by `prefetch`
        end = error
    finally:
        if isinstance(items, Generator):
            items.close()
    _put(ready, (False, end), stop)


def _put(ready: queue.Queue, entry: tuple, stop: threading.Event) -> bool:
    while not stop.is_set():
        try:
            ready.put(entry, timeout=_POLL)
        except queue.Full:
            continue
        return True
    return False
