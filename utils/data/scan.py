"""Find the images of a split and read their labels, from the label cache if the files have not changed."""

from __future__ import annotations

import hashlib
import multiprocessing
import signal
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.inputs import read_file
from utils.base.limits import LABELS
from utils.base.log import LOG, Bar
from utils.base.names import counted
from utils.base.paths import decode_text
from utils.base.processes import usable_cores
from utils.data.coco_scan import (
    ListedImage,
    annotations_digest,
    check_listed,
    listed_cache_path,
    read_listing,
)
from utils.data.coco_source import CocoImages
from utils.data.image_lists import label_name, label_path, list_images
from utils.data.images import check_image
from utils.data.label_cache import (
    BACKGROUND,
    CORRUPT,
    LINE_SKIPPED,
    USABLE,
    Note,
    Scan,
    Subject,
    cache_path,
    content_keys,
    load_scan,
    save_scan,
)
from utils.data.labels import BORDER, IMAGE_SKIPPED, MOST_ERRORS, SampleCheck, build_scan, check_sample
from utils.data.packed import PackedImages, PackedPaths, PackedPolygons, PackedRows
from utils.data.shards.index import open_shards
from utils.data.shards.table import ShardTable
from utils.data.shards.urls import ImageSource, ShardList

CHUNK = 500  # images per task of the pool
MAX_NOTES = 50  # warnings to log; more would hide the rest of the log
_MANY = 10_000  # images from which on processes pay off: most of the work holds the GIL


@dataclass
class LabelledFiles:
    """The usable images of a split with their labels."""

    images: PackedImages
    labels: PackedRows  # (n, 5) float32 per image: class, xywhn
    polygons: PackedPolygons  # (k, 2) float32 per label, fractions; k = 0 for a box
    sizes: np.ndarray  # (N, 2) int32: width, height
    content: str = ""  # digest of the files, without modification times

    def take(self, indices: np.ndarray) -> LabelledFiles:
        """Return the images with these indices (or where a mask is true) in that order; data is shared."""
        selected = self.images.take(indices), self.labels.take(indices), self.polygons.take(indices)
        return LabelledFiles(*selected, self.sizes[indices], self.content)


def load_labels(
    sources: Sequence[ImageSource],
    names: Mapping[int, str] | None = None,
    prefix: str = "",
    root: Path | None = None,
    boxes: bool = False,
) -> LabelledFiles:
    """Find the images of `sources` and read their labels, from the cache if nothing has changed.

    Images and label lines that cannot be used are skipped with a warning that says why.

    Args:
        sources: folders and lists of images, or shards.
        names: class names by number; labels of other classes are errors. None allows any class.
        prefix: text before log messages.
        root: folder of the dataset, which lists of images may be relative to.
        boxes: take the boxes of COCO annotations, also of objects with a polygon or mask.

    Raises:
        DataError: no usable image is left.
    """
    images, scan, content = _find_images(sources, prefix, root, boxes)
    notes = list(scan.notes)
    if names is not None:
        notes += _drop_unknown_classes(scan, names, prefix)
    annotations = next((source.file for source in sources if isinstance(source, CocoImages)), None)
    _log_notes(notes, images, scan.status, prefix, annotations)
    counts = scan.counts.astype(np.int64)
    labels = PackedRows(scan.rows, np.cumsum(counts) - counts, counts)
    polygons = PackedPolygons(scan.points, np.cumsum(scan.outlined, dtype=np.int64), labels)
    files = LabelledFiles(images, labels, polygons, scan.sizes, content).take(scan.status < CORRUPT)
    if not files.images:
        raise DataError(f"{', '.join(map(str, sources))}: none of the {len(images)} images can be used")
    return files


def _find_images(
    sources: Sequence[ImageSource], prefix: str, root: Path | None, boxes: bool
) -> tuple[PackedImages, Scan, str]:
    """Return all images of a split, their scan, and a digest of the files."""
    shards = [source for source in sources if isinstance(source, ShardList)]
    listed = [source for source in sources if isinstance(source, CocoImages)]
    folders = [source for source in sources if isinstance(source, Path)]
    if shards and (folders or listed):
        raise ConfigError(
            f"{(folders or listed)[0]} and {shards[0]}: a split consists of shards or of folders, not of both"
        )
    if listed:
        return _scan_listed(listed, boxes, prefix, root)
    return _scan_shards(shards, prefix) if shards else _scan_folders(folders, prefix, root=root)


def _scan_shards(shards: Sequence[ShardList], prefix: str) -> tuple[ShardTable, Scan, str]:
    name = ", ".join(map(str, shards))
    table, scan = open_shards([url for one in shards for url in one.urls], name, prefix)
    LOG.info(_summary(name, scan.status, prefix))
    digests = "".join(f"{shard.info.size} {shard.sha256}\n" for shard in table.shards)
    return table, scan, hashlib.sha256(digests.encode()).hexdigest()


def load_images(folders: Sequence[Path], prefix: str = "") -> LabelledFiles:
    """Find the images of folders as `load_labels` does, without label files.

    Raises:
        DataError: no usable image is left.
    """
    images, scan, content = _scan_folders(folders, prefix, labelled=False)
    _log_notes(scan.notes, images, scan.status, prefix)
    none = PackedRows(scan.rows, scan.counts, scan.counts)
    polygons = PackedPolygons(scan.points, np.zeros(0, np.int64), none)
    files = LabelledFiles(images, none, polygons, scan.sizes, content).take(scan.status != CORRUPT)
    if not files.images:
        raise DataError(f"{', '.join(map(str, folders))}: none of the {len(images)} images can be used")
    return files


def _scan_folders(
    folders: Sequence[Path], prefix: str, labelled: bool = True, root: Path | None = None
) -> tuple[PackedPaths, Scan, str]:
    images = list_images(folders, root)
    cache, (key, content) = cache_path(folders, images), content_keys(images)
    key += "" if labelled else " images"
    scan = load_scan(cache, key, len(images))
    if scan is not None:
        LOG.info(_summary(cache, scan.status, prefix, labelled))
        return images, scan, content
    scan = _run(scan_images(images, labelled), len(images), cache, prefix, labelled)
    save_scan(cache, key, scan)
    return images, scan, content


def _scan_listed(
    sources: Sequence[CocoImages], boxes: bool, prefix: str, root: Path | None
) -> tuple[PackedPaths, Scan, str]:
    """Scan images with the annotations that they share; those that these do not list are UNLISTED."""
    images = list_images([source.images for source in sources], root)
    cache = listed_cache_path(sources, boxes)
    key, content = content_keys(images, annotations_digest(sources, boxes))
    scan = load_scan(cache, key, len(images))
    if scan is not None:
        LOG.info(_summary(cache, scan.status, prefix))
        return images, scan, content
    listing = read_listing(sources, images, boxes, root)
    check = partial(_check_listed_chunk, file=sources[0].file)
    scan = _run(_scan_chunks(images, check, listing.entries), len(images), cache, prefix)
    scan.notes = [*listing.notes, *scan.notes]
    save_scan(cache, key, scan)
    return images, scan, content


def _run(chunks: Iterator[Scan], count: int, cache: Path, prefix: str, labelled: bool = True) -> Scan:
    """Join the scans of chunks, and show the progress."""
    done: list[Scan] = []
    bar = Bar(chunks, f"{prefix}Scanning {cache}...", total=-(-count // CHUNK))
    for chunk in bar:
        done.append(chunk)
        bar.set_text(_summary(cache, np.concatenate([one.status for one in done]), prefix, labelled))
    return Scan.concatenate(done)


def scan_images(images: PackedPaths, labelled: bool = True) -> Iterator[Scan]:
    """Check images and their label files in parallel; yield the scans of `CHUNK` images each, in order."""
    return _scan_chunks(images, partial(_scan_chunk, labelled=labelled))


def _scan_chunks(
    images: PackedPaths, check: Callable[..., Scan], *of_images: Sequence[Any]
) -> Iterator[Scan]:
    """Yield what `check` returns for `CHUNK` paths at a time, and for the same part of each sequence."""
    chunks = [range(first, min(first + CHUNK, len(images))) for first in range(0, len(images), CHUNK)]
    paths = ([images.root + images.relative_path(index) for index in chunk] for chunk in chunks)
    parts = [[one[chunk.start : chunk.stop] for chunk in chunks] for one in of_images]
    pool = _make_pool(len(images))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of odd Exif data and huge images
        try:
            yield from pool.map(check, paths, *parts)
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the remaining chunks


def _make_pool(images: int) -> Executor:
    cores = usable_cores()
    if images < _MANY or cores == 1 or sys.platform != "linux":  # spawned processes import everything again
        return ThreadPoolExecutor(2)  # one thread waits for the disk while the other computes
    return ProcessPoolExecutor(cores, multiprocessing.get_context("fork"), _ignore_interrupts)


def _ignore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the pool
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _scan_chunk(paths: Sequence[str], labelled: bool) -> Scan:
    return build_scan([_check_file(Path(path), labelled) for path in paths])


def _check_listed_chunk(paths: Sequence[str], entries: Sequence[ListedImage | None], file: Path) -> Scan:
    return build_scan([check_listed(*each, file) for each in zip(paths, entries, strict=True)])


def _check_file(image: Path, labelled: bool = True) -> SampleCheck:
    if not labelled:  # digits to classify are images of 8 x 8 pixels, for example
        return check_sample(str(image), lambda: check_image(image), lambda: None, min_side=1)
    return check_sample(str(image), lambda: check_image(image), lambda: _read_text(label_path(image)))


def _read_text(path: Path) -> str | None:
    try:
        return decode_text(read_file(path, LABELS))
    except FileNotFoundError:
        return None


def _drop_unknown_classes(scan: Scan, names: Mapping[int, str], prefix: str) -> list[Note]:
    """Remove rows of classes that the data yaml does not name; images that lose all rows become corrupt."""
    unknown = ~np.isin(scan.rows[:, 0], list(names))
    if not unknown.any():
        return []
    first, last = int(scan.rows[:, 0].min()), int(scan.rows[:, 0].max())
    if first == 1 and last == len(names):
        LOG.warning(
            f"{prefix}the classes seem to be counted from 1: no label is 0, and the largest is {last}, the "
            "number of classes; YOLO counts from 0, so subtract 1 from the first number of each line"
        )
    image_of_row = np.repeat(np.arange(len(scan.counts)), scan.counts)
    notes = [
        Note(
            int(image_of_row[row]),
            Subject.LINE,
            f"line {scan.lines[row]}: class {scan.rows[row, 0]:.0f} is not in 0-{len(names) - 1}, "
            f"the classes that the data yaml names; {LINE_SKIPPED}",
        )
        for row in np.flatnonzero(unknown)
    ]
    scan.points = scan.points[np.repeat(~unknown, scan.outlined)]
    scan.rows, scan.lines, scan.outlined = scan.rows[~unknown], scan.lines[~unknown], scan.outlined[~unknown]
    counts = np.bincount(image_of_row[~unknown], minlength=len(scan.counts))
    emptied = np.flatnonzero((counts == 0) & (scan.counts > 0))
    scan.counts = counts.astype(np.int32)
    scan.status[emptied] = CORRUPT
    reason = f"no valid line is left; {IMAGE_SKIPPED}"
    return [*notes, *(Note(index, Subject.LABELS, reason) for index in emptied.tolist())]


def _log_notes(
    notes: Sequence[Note],
    images: PackedImages,
    status: np.ndarray,
    prefix: str,
    annotations: Path | None = None,
) -> None:
    ordered = sorted(notes, key=lambda note: note.index)
    clipped = [note for note in ordered if note.subject == Subject.CLIPPED]
    others = [note for note in ordered if note.subject != Subject.CLIPPED]
    shown = list(islice(_first_of_each_file(others), MAX_NOTES))
    for note in shown:
        LOG.warning(f"{prefix}{_subject(note, images, annotations)}: {note.text}")
    if len(others) > len(shown):
        LOG.warning(f"{prefix}... and {len(others) - len(shown)} more warnings")
    if clipped:  # a note for each chunk: the number of lines, and the first
        count = sum(map(_count_of, clipped))
        first = f"{_subject(clipped[0], images, annotations)}, {clipped[0].text.partition(' ')[2]}"
        LOG.warning(
            f"{prefix}{count} label lines with coordinates up to {BORDER} outside 0-1 are clipped, "
            f"first: {first}"
        )
    lines = sum(note.subject == Subject.LINE for note in notes)
    lines += sum(_count_of(note) for note in notes if note.subject == Subject.MORE)
    corrupt = int((status == CORRUPT).sum())
    if lines or corrupt:
        skipped = counted(lines, "label line" if annotations is None else "annotation")
        LOG.warning(f"{prefix}{counted(corrupt, 'image')} and {skipped} are skipped in total")


def _first_of_each_file(notes: Sequence[Note]) -> Iterator[Note]:
    """Yield the notes without those of a file after its first few, so that one file cannot hide others."""
    lines: Counter[int] = Counter()
    for note in notes:
        lines[note.index] += note.subject == Subject.LINE
        if note.subject != Subject.LINE or lines[note.index] <= MOST_ERRORS:
            yield note


def _count_of(note: Note) -> int:
    """Return the number at the start of a note that stands for several lines."""
    number = note.text.partition(" ")[0]
    return int(number) if number.isdecimal() else 1


def _subject(note: Note, images: PackedImages, annotations: Path | None) -> str:
    """Return the name of the image, label file or annotations that a note is about."""
    title = images.title(note.index)
    if annotations is not None:
        return title if note.subject in (Subject.IMAGE, Subject.LABELS) else str(annotations)
    if note.subject == Subject.IMAGE:
        return title
    return f"{title.rpartition('.')[0]}.txt" if isinstance(images, ShardTable) else label_name(title)


def _summary(name: object, status: np.ndarray, prefix: str, labelled: bool = True) -> str:
    counts = np.bincount(status, minlength=3)
    usable = f"{counts[USABLE]} images, {counts[BACKGROUND]} backgrounds"
    found = usable if labelled else f"{counts[BACKGROUND]} images"
    return f"{prefix}Scanning {name}... {found}, {counts[CORRUPT]} corrupt"
