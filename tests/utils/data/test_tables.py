"""Flat arrays that look like lists."""

from __future__ import annotations

import gc
import multiprocessing
import tracemalloc
from multiprocessing.queues import Queue
from pathlib import Path

import numpy as np
import pytest

from utils.data.scan import LabelledFiles
from utils.data.tables import OutlineTable, PathTable, RowTable

PATHS = ["/set/images/ü b/1.jpg", "/set/images/2.jpg", "/set/other/3.jpg"]
ROWS = RowTable(np.arange(12.0).reshape(6, 2), np.array([0, 2, 2]), np.array([2, 0, 4]))


def test_paths_come_out_as_they_went_in() -> None:
    table = PathTable.of(PATHS)
    assert list(table) == [Path(path) for path in PATHS]
    assert (table.root, table.place(1)) == ("/set/", "images/2.jpg")
    assert table[-1] == Path(PATHS[2]) and list(table[:2]) == list(table)[:2]
    assert list(table.take(np.array([2, 0]))) == [Path(PATHS[2]), Path(PATHS[0])]
    with pytest.raises(IndexError):
        table[3]


@pytest.mark.parametrize(
    "paths", [["a.jpg"], ["/a.jpg", "/b.jpg"], ["x/a.jpg", "/y/b.jpg"], ["/s/\udcff.jpg"]]
)
def test_odd_paths_come_out_too(paths: list[str]) -> None:
    assert [str(path) for path in PathTable.of(paths)] == paths


def test_rows_are_views_in_any_order() -> None:
    assert [len(rows) for rows in ROWS] == [2, 0, 4]
    assert np.shares_memory(ROWS[2], ROWS.rows)
    turned = ROWS.take(np.array([2, 0]))
    assert turned.joined()[:, 0].tolist() == [4, 6, 8, 10, 0, 2]
    assert turned.owners().tolist() == [0, 0, 0, 0, 1, 1]
    assert np.array_equal(ROWS.take(np.array([], int)).joined(), np.zeros((0, 2)))


def test_outlines_belong_to_their_rows() -> None:
    points = np.arange(14.0).reshape(7, 2)
    table = OutlineTable(points, np.cumsum([3, 0, 0, 4, 0, 0]), ROWS)
    assert [len(outline) for outline in table[0]] == [3, 0]
    assert table[1] == [] and [len(outline) for outline in table[2]] == [0, 4, 0, 0]
    assert table[2][1].tolist() == points[3:].tolist()
    boxes = OutlineTable(points[:0], np.zeros(6, int), ROWS)
    assert boxes[0] == boxes[2] == []
    assert table.take(np.array([2]))[0][1].tolist() == points[3:].tolist()


def _many(pictures: int) -> LabelledFiles:
    """As many pictures with 3 boxes each."""
    counts = np.full(pictures, 3)
    rows = RowTable(np.zeros((3 * pictures, 5), np.float32), np.cumsum(counts) - counts, counts)
    outlines = OutlineTable(np.zeros((0, 2), np.float32), np.zeros(3 * pictures, np.int64), rows)
    names = PathTable.of(f"/data/images/train2017/{index:012}.jpg" for index in range(pictures))
    return LabelledFiles(names, rows, outlines, np.full((pictures, 2), 640, np.int32))


def test_a_picture_takes_few_bytes_beside_its_boxes() -> None:
    pictures = 20_000
    gc.collect()
    tracemalloc.start()
    files = _many(pictures)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    boxes = files.labels.rows.nbytes + files.polygons.ends.nbytes
    assert (held - boxes) / pictures < 100


def _read_all(files: LabelledFiles, found: Queue[int]) -> None:
    """In a forked process: look at everything twice; how much memory became its own the second time."""

    def private() -> int:
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))

    gc.disable()  # it marks all that pytest has brought along
    before = 0
    for turn in range(2):
        for index in range(len(files.images)):
            assert (
                len(files.labels[index]) == 3 and files.images[index].suffix and files.polygons[index] == []
            )
        if turn == 0:
            before = private()
    found.put(private() - before)


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's account of memory")
def test_workers_copy_nothing() -> None:
    fork = multiprocessing.get_context("fork")
    found: Queue[int] = fork.Queue()
    worker = fork.Process(target=_read_all, args=(_many(20_000), found))
    worker.start()
    grown = found.get(timeout=60)
    worker.join()
    assert grown < 500, "KiB; a list of 20,000 paths alone would be copied as more than 2,000"
