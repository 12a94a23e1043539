"""Look at every picture and label file of a data set once, and keep what can be used."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.progress import Bar
from utils.data.image_lists import label_path, list_images
from utils.data.images import check_image
from utils.data.label_cache import (
    BACKGROUND,
    CORRUPT,
    USABLE,
    Note,
    Scan,
    cache_path,
    content_key,
    load_scan,
    save_scan,
)
from utils.data.labels import Labels, parse_labels
from utils.data.tables import OutlineTable, PathTable, RowTable

MIN_SIDE = 10  # pixels; smaller pictures are mistakes
MAX_NOTES = 50  # more would bury the rest of the log
_LINE_LOST = "the line is skipped"
_PICTURE_LOST = "the picture is skipped"


@dataclass
class LabelledFiles:
    """The usable pictures of a set with their labels."""

    images: PathTable
    labels: RowTable  # (n, 5) float32 each: class, xywhn
    polygons: OutlineTable  # a (k, 2) float32 a label, fractions; empty where there are only boxes
    sizes: np.ndarray  # (N, 2) int32: width, height

    def take(self, indices: np.ndarray) -> LabelledFiles:
        """Some of the pictures, or all in another order; nothing is copied but numbers."""
        parts = (self.images.take(indices), self.labels.take(indices), self.polygons.take(indices))
        return LabelledFiles(*parts, self.sizes[indices])


@dataclass
class _Picture:
    """What is found about one picture."""

    status: int
    size: tuple[int, int] = (0, 0)
    labels: Labels = field(default_factory=lambda: parse_labels(""))
    notes: list[tuple[bool, str]] = field(default_factory=list)  # about the labels?, text


def load_labels(
    sources: Sequence[Path], names: Mapping[int, str] | None = None, prefix: str = ""
) -> LabelledFiles:
    """Find the pictures of `sources` and read their labels, from the cache if nothing has changed.

    Pictures and lines that cannot be used are left out, each with a line that says why.

    Args:
        sources: folders and lists of pictures.
        names: classes; a label of another class is a bad line. None allows any.
        prefix: put before messages.

    Raises:
        DataError: nothing is left.
    """
    images = list_images(sources)
    place, key = cache_path(sources, images), content_key(images)
    scan = load_scan(place, key, len(images))
    if scan is None:
        scan = _scan(images, place, prefix)
        save_scan(place, key, scan)
    else:
        LOG.info(_summary(place, scan.status, prefix))
    notes = list(scan.notes)
    if names is not None:
        notes += _drop_unknown_classes(scan, names)
    _tell(notes, images, scan.status, prefix)
    files = _usable(scan, images)
    if not files.images:
        raise DataError(f"{', '.join(map(str, sources))}: none of the {len(images)} pictures can be used")
    return files


def _scan(images: Sequence[Path], place: Path, prefix: str) -> Scan:
    found: list[_Picture] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's opinions about odd Exif data and huge pictures
        bar = Bar(_look_at_all(images), f"{prefix}Scanning {place}...", total=len(images))
        for picture in bar:
            found.append(picture)
            if len(found) % 500 == 0 or len(found) == len(images):
                bar.say(_summary(place, np.array([item.status for item in found]), prefix))
    return _pack(found)


def _look_at_all(images: Sequence[Path]) -> Iterator[_Picture]:
    pool = ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1))
    try:
        yield from pool.map(_look_at, images)
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C must not wait for the rest


def _look_at(image: Path) -> _Picture:
    try:
        size = check_image(image)
    except (DataError, OSError) as error:
        reason = str(error).removeprefix(f"{image}: ")
        return _Picture(CORRUPT, notes=[(False, f"skipped, {reason}")])
    if min(size) < MIN_SIDE:
        reason = f"skipped, {size[0]}x{size[1]} pixels are fewer than {MIN_SIDE}x{MIN_SIDE}"
        return _Picture(CORRUPT, notes=[(False, reason)])
    try:
        labels = parse_labels(label_path(image).read_text(encoding="utf-8-sig", errors="replace"))
    except FileNotFoundError:
        return _Picture(BACKGROUND, size)
    except OSError as error:
        return _Picture(CORRUPT, notes=[(True, f"{error.strerror or error}; {_PICTURE_LOST}")])
    notes = [(True, f"{fault}; {_LINE_LOST}") for fault in labels.faults]
    notes += [(True, note) for note in labels.notes]
    if labels.faults and not len(labels.rows):
        # As a background it would teach that there is nothing, of which we know the contrary.
        return _Picture(CORRUPT, notes=[*notes, (True, f"no good line is left; {_PICTURE_LOST}")])
    return _Picture(USABLE if len(labels.rows) else BACKGROUND, size, labels, notes)


def _pack(found: Sequence[_Picture]) -> Scan:
    outlines = [points for item in found for points in _outlines(item.labels)]
    return Scan(
        status=np.array([item.status for item in found], np.uint8),
        sizes=np.array([item.size for item in found], np.int32),
        counts=np.array([len(item.labels.rows) for item in found], np.int32),
        rows=np.concatenate([item.labels.rows for item in found]),
        lines=np.concatenate([item.labels.lines for item in found]),
        outlined=np.array([len(points) for points in outlines], np.int32),
        points=np.concatenate([np.zeros((0, 2), np.float32), *outlines]),
        notes=[Note(index, *note) for index, item in enumerate(found) for note in item.notes],
    )


def _outlines(labels: Labels) -> list[np.ndarray]:
    return labels.polygons or [np.zeros((0, 2), np.float32)] * len(labels.rows)


def _drop_unknown_classes(scan: Scan, names: Mapping[int, str]) -> list[Note]:
    """Take rows of classes that the data yaml does not name out of the scan; pictures without others, too."""
    unknown = ~np.isin(scan.rows[:, 0], list(names))
    if not unknown.any():
        return []
    owner = np.repeat(np.arange(len(scan.counts)), scan.counts)
    notes = [
        Note(
            int(owner[row]),
            True,
            f"line {scan.lines[row]}: class {scan.rows[row, 0]:.0f} is not in 0-{len(names) - 1}, "
            f"the classes that the data yaml names; {_LINE_LOST}",
        )
        for row in np.flatnonzero(unknown)
    ]
    scan.points = scan.points[np.repeat(~unknown, scan.outlined)]
    scan.rows, scan.lines, scan.outlined = scan.rows[~unknown], scan.lines[~unknown], scan.outlined[~unknown]
    counts = np.bincount(owner[~unknown], minlength=len(scan.counts))
    emptied = np.flatnonzero((counts == 0) & (scan.counts > 0))
    scan.counts = counts.astype(np.int32)
    scan.status[emptied] = CORRUPT
    return [*notes, *(Note(int(i), True, f"no good line is left; {_PICTURE_LOST}") for i in emptied)]


def _usable(scan: Scan, images: PathTable) -> LabelledFiles:
    counts = scan.counts.astype(np.int64)
    labels = RowTable(scan.rows, np.cumsum(counts) - counts, counts)
    outlines = OutlineTable(scan.points, np.cumsum(scan.outlined, dtype=np.int64), labels)
    return LabelledFiles(images, labels, outlines, scan.sizes).take(scan.status != CORRUPT)


def _summary(place: Path, status: np.ndarray, prefix: str) -> str:
    counts = np.bincount(status, minlength=3)
    return (
        f"{prefix}Scanning {place}... {counts[USABLE]} images, "
        f"{counts[BACKGROUND]} backgrounds, {counts[CORRUPT]} corrupt"
    )


def _tell(notes: Sequence[Note], images: Sequence[Path], status: np.ndarray, prefix: str) -> None:
    for note in sorted(notes, key=lambda note: note.index)[:MAX_NOTES]:
        image = images[note.index]
        LOG.warning(f"{prefix}{label_path(image) if note.about_labels else image}: {note.text}")
    if len(notes) > MAX_NOTES:
        LOG.warning(f"{prefix}... and {len(notes) - MAX_NOTES} more of the kind")
    lines = sum(note.text.endswith(_LINE_LOST) for note in notes)
    pictures = int((status == CORRUPT).sum())
    if lines or pictures:
        LOG.warning(f"{prefix}in all {pictures} pictures and {lines} lines of labels are skipped")
