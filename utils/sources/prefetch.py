"""Let work run ahead in threads, without changing its order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_POLL = 0.2  # seconds; waits end now and then, so that Ctrl-C gets through on every platform


def prefetch(items: Iterator[T], depth: int = 2) -> Generator[T, None, None]:
    """Yield `items`, of which `depth` are made beforehand in a thread.

    An exception of `items` is raised here, in its turn. When this generator is closed, the thread stops and
    `items` is closed as well, if it is a generator.
    """
    ready: queue.Queue[tuple[bool, T | BaseException | None]] = queue.Queue(depth)
    stop = threading.Event()
    worker = threading.Thread(target=_work, args=(items, ready, stop), name="prefetch", daemon=True)
    worker.start()
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
        worker.join(timeout=5)  # a decoder that hangs must not keep the program


def in_turn(
    work: Callable[[T], R], items: Iterable[T], pool: Executor | None, ahead: int
) -> Generator[Future[R], None, None]:
    """Yield what became of `work(item)` for each of `items`, in their order, done by the threads of a pool.

    An exception of `work` waits in its future, so that the caller decides whether to go on; one of `items`
    is raised here. When this generator is closed, what has not begun is dropped.

    Args:
        work: called in the threads.
        items: taken in the thread of the caller.
        pool: who works; None: the caller, when the next result is asked for.
        ahead: how many are begun before the first is asked for.
    """
    pending: deque[Future[R]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(work, item) if pool else _done(work, item))
            if len(pending) > (ahead if pool else 0):
                yield finished(pending.popleft())
        while pending:
            yield finished(pending.popleft())
    finally:
        for future in pending:
            future.cancel()


def _done(work: Callable[[T], R], item: T) -> Future[R]:
    future: Future[R] = Future()
    try:
        future.set_result(work(item))
    except Exception as error:  # the caller raises it again
        future.set_exception(error)
    return future


def finished(future: Future[R]) -> Future[R]:
    """Wait until a future is done; Ctrl-C is heard meanwhile."""
    while not wait([future], timeout=_POLL).done:
        pass
    return future


def _work(items: Iterator[T], ready: queue.Queue, stop: threading.Event) -> None:
    end: BaseException | None = None
    try:
        for item in items:
            if not _put(ready, (True, item), stop):
                break
    except BaseException as error:  # the consumer raises it again
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
