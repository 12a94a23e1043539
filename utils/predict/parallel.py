"""Several pictures on their way through the model at a time, each on its share of the cores.

A small network keeps one core busy and two badly: between its many short layers threads wait for each
other. Pictures side by side, a core for each, need not wait. Measured: yolov5n, 2 cores, forward alone, a
picture every 6.9 ms instead of 9.8 at 320 px, 32 ms instead of 42 at 640 px.

The same threads read and write, so that no more of them run than there are cores. Of more, the system
suspends one or another: it may hold Python's lock, or be the one for which all other threads of a layer
wait. (Measured: a TorchScript file on both cores, pictures written by a third thread: 15 to 220 ms each.)
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import torch

from utils.base.processes import usable_cores
from utils.sources.prefetch import in_turn

T = TypeVar("T")
R = TypeVar("R")

MOST = 8  # lanes; each holds the maps of a picture, and Python has one lock for all of them
SERVANTS = 4  # threads that read and write for another device, at most


class Lanes:
    """How many pictures a device looks at side by side, and the threads that serve them.

    Args:
        device: where the model is; lanes are for the CPU, other devices have a queue of their own.
        most: pictures or batches that can be had at a time; 1 leaves all cores to each.
    """

    def __init__(self, device: torch.device, most: int = MOST) -> None:
        self.device = device
        self.count = max(min(torch.get_num_threads(), most, MOST), 1) if device.type == "cpu" else 1

    @contextmanager
    def pool(self) -> Iterator[Executor | None]:
        """Threads for all kinds of work: one for each lane; a few beside another device; else none."""
        if self.count == 1:
            if self.device.type == "cpu":  # the model has all cores
                yield None
                return
            with ThreadPoolExecutor(min(SERVANTS, usable_cores()), "servant") as pool:
                yield pool
            return
        threads = torch.get_num_threads()
        share = partial(torch.set_num_threads, max(threads // self.count, 1))
        try:
            with ThreadPoolExecutor(self.count, "lane", initializer=share) as pool:
                yield pool
        finally:
            torch.set_num_threads(threads)  # the share is every new thread's, too

    def map(
        self, work: Callable[[T], R], items: Iterable[T], pool: Executor | None
    ) -> Generator[R, None, None]:
        """Yield `work(item)` for each of `items`, in their order; a single lane is the caller's thread.

        An exception is raised in its turn.
        """
        if self.count == 1:
            yield from map(work, items)
            return
        for future in in_turn(work, items, pool, self.count):
            yield future.result()
