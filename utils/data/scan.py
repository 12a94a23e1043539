"""Look at the images of a folder and their label files; processes share the work where there is much."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.processes import usable_cores
from utils.base.progress import Bar
from utils.data.image_lists import label_name, label_path, list_images
from utils.data.images import check_image
from utils.data.label_cache import (
    BACKGROUND,
    CORRUPT,
    USABLE,
    Note,
    Scan,
    cache_path,
    content_keys,
    load_scan,
    save_scan,
)
from utils.data.labels import IMAGE_LOST, LINE_LOST, SampleCheck, check_sample, pack
from utils.data.packed import PackedImages, PackedPaths, PackedPolygons, PackedRows
from utils.data.shards.index import open_shards
from utils.data.shards.table import ShardTable
from utils.data.shards.urls import ShardList, Source

CHUNK = 500  # images that one worker looks at
_MANY = 10_000  # from here on processes are worth their start: most of the work holds Python's lock


def check_all(images: PackedPaths) -> Iterator[Scan]:
    """What is found about images, `CHUNK` of them at a time, in their order."""
    chunks = [range(first, min(first + CHUNK, len(images))) for first in range(0, len(images), CHUNK)]
    paths = ([images.root + images.place(index) for index in chunk] for chunk in chunks)
    pool = _make_pool(len(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's opinions about odd Exif data and huge images
        try:
            yield from pool.map(_check_some, paths)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest


def _make_pool(images: int) -> Executor:
    cores = usable_cores()
    if images < _MANY or cores == 1 or sys.platform != "linux":  # elsewhere each imports everything again
        return ThreadPoolExecutor(2)  # one waits for the disk while the other computes
    return ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), _leave_ctrl_c_alone)


def _leave_ctrl_c_alone() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _check_some(images: Sequence[str]) -> Scan:
    return pack([_check_one(Path(image)) for image in images])


def _check_one(image: Path) -> SampleCheck:
    return check_sample(str(image), lambda: check_image(image), lambda: _text(label_path(image)))


def _text(labels: Path) -> str | None:
    try:
        return labels.read_text(encoding="utf-8-sig", errors="replace")
    except FileNotFoundError:
        return None


MAX_NOTES = 50  # more would bury the rest of the log


@dataclass
class LabelledFiles:
    """The usable images of a set with their labels."""

    images: PackedImages
    labels: PackedRows  # (n, 5) float32 each: class, xywhn
    polygons: PackedPolygons  # a (k, 2) float32 a label, fractions; empty where there are only boxes
    sizes: np.ndarray  # (N, 2) int32: width, height
    content: str = ""  # digest of the files, which changes with them

    def take(self, indices: np.ndarray) -> LabelledFiles:
        """Some of the images, or all in another order; nothing is copied but numbers."""
        parts = (self.images.take(indices), self.labels.take(indices), self.polygons.take(indices))
        return LabelledFiles(*parts, self.sizes[indices], self.content)


def load_labels(
    sources: Sequence[Source], names: Mapping[int, str] | None = None, prefix: str = ""
) -> LabelledFiles:
    """Find the images of `sources` and read their labels, from the cache if nothing has changed.

    Images and lines that cannot be used are left out, each with a line that says why.

    Args:
        sources: folders and lists of images, or shards.
        names: classes; a label of another class is a bad line. None allows any.
        prefix: put before messages.

    Raises:
        DataError: nothing is left.
    """
    images, scan, content = _find(sources, prefix)
    notes = list(scan.notes)
    if names is not None:
        notes += _drop_unknown_classes(scan, names)
    _tell(notes, images, scan.status, prefix)
    files = _usable(scan, images)
    files.content = content
    if not files.images:
        raise DataError(f"{', '.join(map(str, sources))}: none of the {len(images)} images can be used")
    return files


def _find(sources: Sequence[Source], prefix: str) -> tuple[PackedImages, Scan, str]:
    """All images of a split, what a scan has found about them now or before, a digest of their files."""
    shards = [source for source in sources if isinstance(source, ShardList)]
    folders = [source for source in sources if isinstance(source, Path)]
    if shards:
        if folders:
            raise ConfigError(
                f"{folders[0]} and {shards[0]}: a split is made of shards or of folders, not of both"
            )
        place = ", ".join(map(str, shards))
        table, scan = open_shards([url for one in shards for url in one.urls], place, prefix)
        LOG.info(_summary(place, scan.status, prefix))
        digests = "".join(f"{shard.info.size} {shard.sha256}\n" for shard in table.shards)
        return table, scan, hashlib.sha256(digests.encode()).hexdigest()
    images = list_images(folders)
    cache, (key, content) = cache_path(folders, images), content_keys(images)
    known = load_scan(cache, key, len(images))
    if known is None:
        known = _scan(images, cache, prefix)
        save_scan(cache, key, known)
    else:
        LOG.info(_summary(cache, known.status, prefix))
    return images, known, content


def _scan(images: PackedPaths, place: Path, prefix: str) -> Scan:
    bar = Bar(check_all(images), f"{prefix}Scanning {place}...", total=-(-len(images) // CHUNK))
    parts: list[Scan] = []
    for part in bar:
        parts.append(part)
        bar.say(_summary(place, np.concatenate([one.status for one in parts]), prefix))
    return Scan.joined(parts)


def _drop_unknown_classes(scan: Scan, names: Mapping[int, str]) -> list[Note]:
    """Take rows of classes that the data yaml does not name out of the scan; images without others, too."""
    unknown = ~np.isin(scan.rows[:, 0], list(names))
    if not unknown.any():
        return []
    owner = np.repeat(np.arange(len(scan.counts)), scan.counts)
    notes = [
        Note(
            int(owner[row]),
            True,
            f"line {scan.lines[row]}: class {scan.rows[row, 0]:.0f} is not in 0-{len(names) - 1}, "
            f"the classes that the data yaml names; {LINE_LOST}",
        )
        for row in np.flatnonzero(unknown)
    ]
    scan.points = scan.points[np.repeat(~unknown, scan.outlined)]
    scan.rows, scan.lines, scan.outlined = scan.rows[~unknown], scan.lines[~unknown], scan.outlined[~unknown]
    counts = np.bincount(owner[~unknown], minlength=len(scan.counts))
    emptied = np.flatnonzero((counts == 0) & (scan.counts > 0))
    scan.counts = counts.astype(np.int32)
    scan.status[emptied] = CORRUPT
    return [*notes, *(Note(int(i), True, f"no good line is left; {IMAGE_LOST}") for i in emptied)]


def _usable(scan: Scan, images: PackedImages) -> LabelledFiles:
    counts = scan.counts.astype(np.int64)
    labels = PackedRows(scan.rows, np.cumsum(counts) - counts, counts)
    polygons = PackedPolygons(scan.points, np.cumsum(scan.outlined, dtype=np.int64), labels)
    return LabelledFiles(images, labels, polygons, scan.sizes).take(scan.status != CORRUPT)


def _summary(place: object, status: np.ndarray, prefix: str) -> str:
    counts = np.bincount(status, minlength=3)
    return (
        f"{prefix}Scanning {place}... {counts[USABLE]} images, "
        f"{counts[BACKGROUND]} backgrounds, {counts[CORRUPT]} corrupt"
    )


def _tell(notes: Sequence[Note], images: PackedImages, status: np.ndarray, prefix: str) -> None:
    for note in sorted(notes, key=lambda note: note.index)[:MAX_NOTES]:
        title = images.title(note.index)
        if note.about_labels:
            in_shard = isinstance(images, ShardTable)
            title = f"{title.rpartition('.')[0]}.txt" if in_shard else label_name(title)
        LOG.warning(f"{prefix}{title}: {note.text}")
    if len(notes) > MAX_NOTES:
        LOG.warning(f"{prefix}... and {len(notes) - MAX_NOTES} more of the kind")
    lines = sum(note.text.endswith(LINE_LOST) for note in notes)
    corrupt = int((status == CORRUPT).sum())
    if lines or corrupt:
        LOG.warning(f"{prefix}in all {corrupt} images and {lines} lines of labels are skipped")
