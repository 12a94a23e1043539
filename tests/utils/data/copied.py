"""Measure how much memory a forked process copies by reading a packed dataset; `python -m` prints KiB."""

from __future__ import annotations

import gc
import multiprocessing
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np

from utils.data.packed import PackedPaths, PackedPolygons, PackedRows
from utils.data.scan import LabelledFiles


def many_images(images: int) -> LabelledFiles:
    """Return this number of images with 3 boxes each."""
    counts = np.full(images, 3)
    rows = PackedRows(np.zeros((3 * images, 5), np.float32), np.cumsum(counts) - counts, counts)
    polygons = PackedPolygons(np.zeros((0, 2), np.float32), np.zeros(3 * images, np.int64), rows)
    names = PackedPaths.of(f"/data/images/train2017/{index:012}.jpg" for index in range(images))
    return LabelledFiles(names, rows, polygons, np.full((images, 2), 640, np.int32))


def _read_all(files: LabelledFiles, found: Queue[int]) -> None:
    """Read everything twice; put the KiB that became private the second time into the queue."""

    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

    gc.disable()
    before = 0
    for repeat in range(2):
        for index in range(len(files.images)):
            assert len(files.labels[index]) == 3 and files.polygons[index] == []
            assert files.images[index].suffix
        if repeat == 0:
            before = private()
    found.put(private() - before)


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    results: Queue[int] = fork.Queue()
    worker = fork.Process(target=_read_all, args=(many_images(20_000), results))
    worker.start()
    print(results.get(timeout=60))
    worker.join()
