"""Worker processes of a loader: how many, how they start, and what their errors mean."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

import cv2
import torch

from utils.base.device import keep_freed_memory
from utils.base.errors import YoloError, first_line
from utils.base.log import LOG
from utils.base.processes import open_files, usable_cores

_FILES, _FILES_OF_WORKER = 64, 24  # open files of a process, and for batches that each worker has made
_TOO_MANY_FILES = "Too many open files"
_T = TypeVar("_T")


class WorkerError(YoloError):
    """A worker process has ended, or cannot be started."""


def count_workers(wanted: int, batch_size: int) -> int:
    """Return the number of workers: at most one per core and image, none where too few files can be open."""
    cores = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) or 1  # share of this process
    workers = max(min(cores, batch_size if batch_size > 1 else 0, wanted), 0)
    files = open_files(_FILES + workers * _FILES_OF_WORKER) if workers else 0
    if files < _FILES + workers * _FILES_OF_WORKER and workers:
        LOG.warning(f"{files} open files (ulimit -n) are too few for {workers} workers; loading without them")
        return 0
    if workers and (reason := _no_shared_memory()):
        LOG.warning(
            f"workers need shared memory and a folder for temporary files ({reason}); loading without them"
        )
        return 0
    return workers


def _no_shared_memory() -> str:
    """Return why processes cannot share batches; empty if they can."""
    try:
        tempfile.gettempdir()
        multiprocessing.Lock()
        torch.UntypedStorage._new_shared(1)
    except (OSError, RuntimeError) as error:
        return getattr(error, "strerror", None) or first_line(error)
    return ""


@contextmanager
def worker_errors() -> Iterator[None]:
    """Raise WorkerError, one line with advice, for what PyTorch raises about workers."""
    try:
        yield
    except (EOFError, OSError, RuntimeError) as error:
        if _TOO_MANY_FILES in str(error):
            raise WorkerError(
                "too many open files for the workers: raise `ulimit -n`, or set --workers 0"
            ) from error
        # One that ends while it hands over a batch leaves a broken connection.
        if "DataLoader worker" in str(error) or isinstance(error, ConnectionError | EOFError):
            raise WorkerError(
                f"a dataloader worker ended ({first_line(error)}); if memory was short, lower --workers or "
                "--cache"
            ) from error
        raise


class _ChildHandler:
    """SIGCHLD handler that raises the death of a worker only while the main thread waits for a batch.

    PyTorch's own raises it wherever the main thread is, so also within a save, or while an error is handled.
    What it does not raise here, PyTorch notices by itself within 5 s of waiting for the next batch.
    """

    waiting = False

    def __init__(self, before: Any, raises: Any) -> None:
        self._before = before
        self._raises = raises  # it calls the one before, too

    def __call__(self, number: int, frame: FrameType | None) -> None:
        handler = self._raises if self.waiting else self._before
        if callable(handler):
            handler(number, frame)


def _child_handler() -> Any:
    """Return the handler of ended processes; None where there is none, on Windows and in other threads."""
    if not hasattr(signal, "SIGCHLD") or threading.current_thread() is not threading.main_thread():
        return None
    return signal.getsignal(signal.SIGCHLD)


def batches_of(loader: Iterable[_T]) -> Iterator[_T]:
    """Yield the batches of a PyTorch loader; a worker that has ended raises an error between them only.

    Raises:
        WorkerError: a worker has ended, or cannot be started.
    """
    before = _child_handler()
    with worker_errors(), interrupts_blocked():
        batches = iter(loader)
    if (installed := _child_handler()) is not before:  # by PyTorch, for the first loader with workers
        signal.signal(signal.SIGCHLD, _ChildHandler(before, installed))
    while True:
        with worker_errors():
            _ChildHandler.waiting = True
            try:
                batch = next(batches)
            except StopIteration:
                return
            finally:
                _ChildHandler.waiting = False
        yield batch


def set_up_worker(worker: int) -> None:
    """Prepare a worker process: signals, threads, memory."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the main process handles Ctrl-C and ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the script's handler, which a fork inherits
    cv2.setNumThreads(0)  # the workers are the threads
    keep_freed_memory()


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block Ctrl-C while workers start: before `set_up_worker` runs they would print tracebacks.

    Workers inherit the signal mask; the main process receives the signal when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
