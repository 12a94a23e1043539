"""Let an iterator work ahead in a thread."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from typing import TypeVar

T = TypeVar("T")

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
