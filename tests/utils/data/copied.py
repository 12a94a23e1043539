"""How much memory a forked process makes its own by reading the tables of a set: `python -m` prints KiB."""

from __future__ import annotations

import gc
import multiprocessing
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np

from utils.data.packed import OutlineTable, PathTable, RowTable
from utils.data.scan import LabelledFiles


def many_pictures(pictures: int) -> LabelledFiles:
    """As many pictures with 3 boxes each."""
    counts = np.full(pictures, 3)
    rows = RowTable(np.zeros((3 * pictures, 5), np.float32), np.cumsum(counts) - counts, counts)
    outlines = OutlineTable(np.zeros((0, 2), np.float32), np.zeros(3 * pictures, np.int64), rows)
    names = PathTable.of(f"/data/images/train2017/{index:012}.jpg" for index in range(pictures))
    return LabelledFiles(names, rows, outlines, np.full((pictures, 2), 640, np.int32))


def _read_all(files: LabelledFiles, found: Queue[int]) -> None:
    """Look at everything twice, and tell how much memory became private the second time."""

    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

    gc.disable()
    before = 0
    for turn in range(2):
        for index in range(len(files.images)):
            assert len(files.labels[index]) == 3 and files.polygons[index] == []
            assert files.images[index].suffix
        if turn == 0:
            before = private()
    found.put(private() - before)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    told: Queue[int] = fork.Queue()
    worker = fork.Process(target=_read_all, args=(many_pictures(20_000), told))
    worker.start()
    print(told.get(timeout=60))
    worker.join()
