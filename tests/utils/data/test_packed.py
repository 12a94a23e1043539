"""Flat arrays that are indexed like lists."""

from __future__ import annotations

import gc
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.copied import many_images
from utils.base.paths import ROOT
from utils.data.packed import PackedPaths, PackedPolygons, PackedRows

PATHS = ["/set/images/ü b/1.jpg", "/set/images/2.jpg", "/set/other/3.jpg"]
ROWS = PackedRows(np.arange(12.0).reshape(6, 2), np.array([0, 2, 2]), np.array([2, 0, 4]))


def test_paths_are_returned_unchanged() -> None:
    table = PackedPaths.of(PATHS)
    assert list(table) == [Path(path) for path in PATHS]
    assert (table.root, table.relative_path(1)) == ("/set/", "images/2.jpg")
    assert table[-1] == Path(PATHS[2]) and list(table[:2]) == list(table)[:2]
    assert list(table.take(np.array([2, 0]))) == [Path(PATHS[2]), Path(PATHS[0])]
    with pytest.raises(IndexError):
        table[3]


@pytest.mark.parametrize(
    "paths", [["a.jpg"], ["/a.jpg", "/b.jpg"], ["x/a.jpg", "/y/b.jpg"], ["/s/\udcff.jpg"]]
)
def test_unusual_paths_are_returned_unchanged(paths: list[str]) -> None:
    assert [str(path) for path in PackedPaths.of(paths)] == paths


def test_rows_are_views_in_any_order() -> None:
    assert [len(rows) for rows in ROWS] == [2, 0, 4]
    assert np.shares_memory(ROWS[2], ROWS.rows)
    reordered = ROWS.take(np.array([2, 0]))
    assert reordered.joined()[:, 0].tolist() == [4, 6, 8, 10, 0, 2]
    assert np.array_equal(ROWS.take(np.array([], int)).joined(), np.zeros((0, 2)))


def test_polygons_belong_to_their_rows() -> None:
    points = np.arange(14.0).reshape(7, 2)
    table = PackedPolygons(points, np.cumsum([3, 0, 0, 4, 0, 0]), ROWS)
    assert [len(polygon) for polygon in table[0]] == [3, 0]
    assert table[1] == [] and [len(polygon) for polygon in table[2]] == [0, 4, 0, 0]
    assert table[2][1].tolist() == points[3:].tolist()
    boxes = PackedPolygons(points[:0], np.zeros(6, int), ROWS)
    assert boxes[0] == boxes[2] == []
    assert table.take(np.array([2]))[0][1].tolist() == points[3:].tolist()


def test_an_image_takes_less_than_100_bytes_besides_its_boxes() -> None:
    images = 20_000
    gc.collect()
    tracemalloc.start()
    files = many_images(images)
    gc.collect()
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    boxes = files.labels.rows.nbytes + files.polygons.ends.nbytes
    assert (held - boxes) / images < 100


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="needs smaps_rollup of Linux")
def test_workers_copy_nothing() -> None:
    command = [sys.executable, "-m", "tests.utils.data.copied"]  # a process without pytest's own memory
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert int(done.stdout) < 500, "KiB; a list of 20,000 paths alone would be copied as more than 2,000"
