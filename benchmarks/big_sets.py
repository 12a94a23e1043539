"""Large datasets: speed of the label scan and of the cached index, memory per image, shards.

    python benchmarks/big_sets.py                # 20,000 files, an index of 1,000,000 images
    python benchmarks/big_sets.py --files 100000

Files are generated in a temporary folder; the scan is compared with just reading the same files.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # idle threads do not spin; before torch is imported

from utils.data import label_cache
from utils.data.label_cache import Scan
from utils.data.packed import PackedPaths, PackedPolygons, PackedRows
from utils.data.scan import LabelledFiles, load_labels
from utils.data.shards.index import ShardIndex, index_path, open_shards
from utils.data.shards.store import shard_info

BOXES = 7  # per image, as in COCO


def main() -> None:
    """Run the benchmark."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--files", type=int, default=20_000, help="number of images with label files")
    p.add_argument("--index", type=int, default=1_000_000, help="number of images in the synthetic index")
    opt = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["YOLOV5_CONFIG_DIR"] = str(home / "cache")
        files(home, opt.files)
        index(home, opt.index)
        shards(home, opt.index)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def files(home: Path, count: int) -> None:
    """Scan a folder without and with its cache, and compare with just reading the files."""
    images, labels = home / "images", home / "labels"
    images.mkdir()
    labels.mkdir()
    image = cv2.imencode(".jpg", np.full((32, 32, 3), 90, np.uint8))[1].tobytes()
    rows = "".join(f"{n} 0.5 0.5 0.{n + 1} 0.{n + 1}\n" for n in range(BOXES))
    for number in range(count):
        (images / f"{number:012}.jpg").write_bytes(image)
        (labels / f"{number:012}.txt").write_text(rows)
    bare, _ = timed(lambda: [path.read_bytes() for folder in (images, labels) for path in folder.iterdir()])
    cold, found = timed(lambda: load_labels([images]))
    cached, _ = timed(lambda: load_labels([images]))
    assert len(found.images) == count
    print(f"{count:,} files: just reading both: {count / bare:,.0f} images per second")
    print(f"  scan: {count / cold:,.0f} per second ({cold / bare:.1f} times as long as reading)")
    print(f"  cached: {count / cached:,.0f} per second; size and modification time of each file are checked")


def index(home: Path, count: int) -> None:
    """Load a synthetic index and compute its size in memory."""
    scan = synthetic(count)
    label_cache.save_scan(home / "x.cache.npz", "key", scan)
    seconds, opened = timed(lambda: label_cache.load_scan(home / "x.cache.npz", "key", count))
    assert opened is not None and len(opened.rows) == count * BOXES
    names = PackedPaths.of(f"/data/images/train2017/{number:012}.jpg" for number in range(count))
    counts = opened.counts.astype(np.int64)
    labels = PackedRows(opened.rows, np.cumsum(counts) - counts, counts)
    polygons = PackedPolygons(opened.points, np.cumsum(opened.outlined, dtype=np.int64), labels)
    held = LabelledFiles(names, labels, polygons, opened.sizes)
    arrays = (names.text, names.starts, names.ends, labels.starts, labels.counts, held.sizes)
    size = sum(array.nbytes for array in arrays)
    print(
        f"{count:,} images: index opened in {seconds:.2f} s, {size / count:.0f} bytes per image without boxes"
    )
    print(f"  boxes: {(labels.rows.nbytes + polygons.ends.nbytes) / len(labels.rows):.0f} bytes each, mapped")


def shards(home: Path, count: int, per_shard: int = 1000) -> None:
    """Open synthetic shards by their indices, including the check that these are up to date."""
    scan = synthetic(per_shard)
    urls = []
    for number in range(count // per_shard):
        path = home / f"train-{number:06}.tar"
        with tarfile.open(path, "w") as shard:
            shard.addfile(tarfile.TarInfo("x"), io.BytesIO())
        info = shard_info(str(path))
        names = "".join(f"{number:06}{one:06}.jpg\n" for one in range(per_shard)).encode()
        offsets = np.zeros(per_shard, np.int64)
        one = ShardIndex(np.frombuffer(names, np.uint8), offsets, offsets, scan, "0" * 64)
        label_cache.save_with_fallback(Path(index_path(str(path))), one.arrays(info))
        urls.append(str(path))
    seconds, (table, _) = timed(lambda: open_shards(urls, "synthetic"))
    print(f"{len(table):,} images in {len(urls):,} shards: opened in {seconds:.2f} s")


def synthetic(count: int) -> Scan:
    """Make the result of a scan of images with boxes."""
    return Scan(
        status=np.zeros(count, np.uint8),
        sizes=np.full((count, 2), 640, np.int32),
        counts=np.full(count, BOXES, np.int32),
        rows=np.full((count * BOXES, 5), 0.5, np.float32),
        lines=np.ones(count * BOXES, np.int32),
        outlined=np.zeros(count * BOXES, np.int32),
        points=np.zeros((0, 2), np.float32),
    )


if __name__ == "__main__":
    main()
