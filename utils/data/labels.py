"""Read label files, one object per line: `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from utils.base.errors import DataError
from utils.data.label_cache import BACKGROUND, CORRUPT, LINE_SKIPPED, USABLE, Note, Scan, Subject
from utils.ops.boxes import segments2boxes

MIN_SIDE = 10  # pixels; smaller images are taken for errors
IMAGE_SKIPPED = "the image is skipped"
BORDER = 1e-3  # how far beyond 0-1 a coordinate may be, which tools round and predictors overshoot
_LARGEST_CLASS = 2**24  # larger integers are not exact in float32
_SMALLEST = 1e-6  # of the image; boxes that are narrower have no width, and polygons are a line
MOST_ERRORS = 5  # of one label file that are described; others are counted
BOX_VALUES = 5
_MIN_POLYGON_VALUES = 7  # a class and three points


@dataclass
class Labels:
    """The content of a label file."""

    rows: np.ndarray  # (n, 5) float32: class, xywhn
    lines: np.ndarray  # (n,) int32: line number of each row, from 1
    polygons: list[np.ndarray] = field(default_factory=list)  # (k, 2) fractions per row; k = 0 for a box
    errors: list[str] = field(default_factory=list)  # one for each line that is skipped
    notes: list[str] = field(default_factory=list)  # warnings about lines that are used
    clipped: list[str] = field(default_factory=list)  # lines with a coordinate that was slightly outside 0-1


def parse_labels(text: str) -> Labels:
    """Parse a label file line by line; lines with errors are skipped and described in `Labels.errors`.

    Duplicate rows are removed. `Labels.polygons` is empty if all rows are boxes.
    """
    numbered = [
        (number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())
    ]
    labels = _parse_boxes(numbered) or _parse_lines(numbered)
    return _remove_duplicates(labels)


def _parse_boxes(numbered: Sequence[tuple[int, list[str]]]) -> Labels | None:
    """Parse a file of boxes without errors in one step; return None for any other file."""
    if any(len(words) != BOX_VALUES for _, words in numbered):
        return None
    try:
        with np.errstate(over="ignore", invalid="ignore"):  # beyond float32, and NaN: described below
            rows = np.array([words for _, words in numbered], np.float32).reshape(-1, BOX_VALUES)
            whole = (rows[:, 0] % 1 == 0).all() and (rows[:, 0] <= _LARGEST_CLASS).all()
    except ValueError:
        return None
    if not (whole and (rows >= 0).all() and (rows[:, 1:] <= 1).all()):  # False for NaN, too
        return None
    if len(rows) and rows[:, 3:].min() < _SMALLEST:
        return None
    return Labels(rows, np.array([number for number, _ in numbered], np.int32))


def _parse_lines(numbered: Sequence[tuple[int, list[str]]]) -> Labels:
    labels = Labels(np.zeros((0, BOX_VALUES), np.float32), np.zeros(0, np.int32))
    rows, lines = [], []
    for number, words in numbered:
        try:
            values, points, outside = _parse_line(words)
        except ValueError as error:
            labels.errors.append(f"line {number}: {error}")
            continue
        if outside:
            labels.clipped.append(f"line {number}: {outside}")
        rows.append(values)
        lines.append(number)
        labels.polygons.append(points)
    if rows:
        labels.rows, labels.lines = np.stack(rows), np.array(lines, np.int32)
    if not any(len(points) for points in labels.polygons):
        labels.polygons = []
    return labels


def _parse_line(words: Sequence[str]) -> tuple[np.ndarray, np.ndarray, str]:
    """Parse a line: the box (5,), its polygon (k, 2), empty for a box, and the coordinate that was clipped.

    Raises:
        ValueError: it is not a box or a polygon.
    """
    count = len(words)
    if count != BOX_VALUES and (count < _MIN_POLYGON_VALUES or count % 2 == 0):
        spaces = "; they are separated by spaces" if any("," in word or ";" in word for word in words) else ""
        raise ValueError(f"{count} values; a box has 5, a polygon 1 and at least 3 pairs{spaces}")
    numbers = np.array([_parse_number(word) for word in words])
    if numbers[0] < 0 or numbers[0] % 1:
        raise ValueError(f"class {words[0][:40]} is not an integer of at least 0")
    if numbers[0] > _LARGEST_CLASS:
        raise ValueError(f"class {words[0][:40]} is too large")
    distance = np.maximum(-numbers[1:], numbers[1:] - 1)
    worst = int(distance.argmax())
    if distance[worst] > BORDER:
        raise ValueError(f"{words[1 + worst][:40]} is not in 0-1 (coordinates are fractions)")
    outside = words[1 + worst] if distance[worst] > 0 else ""
    values = np.concatenate((numbers[:1], numbers[1:].clip(0, 1))).astype(np.float32)
    points = np.zeros((0, 2), np.float32)
    if count >= _MIN_POLYGON_VALUES:
        points = values[1:].reshape(-1, 2)
        values = np.concatenate((values[:1], segments2boxes([points])[0]))
    for side, size in (("width", values[3]), ("height", values[4])):
        if size < _SMALLEST:
            raise ValueError(f"the {'polygon' if len(points) else 'box'} has no {side}")
    if len(points) and _is_line(points):
        raise ValueError("the points of the polygon are on one line")
    return values, points, outside


def _is_line(points: np.ndarray) -> bool:
    """Return whether all points (k, 2) are on one line."""
    offsets = points.astype(np.float64) - points[0]
    along = offsets[np.square(offsets).sum(1).argmax()]
    across = offsets[:, 0] * along[1] - offsets[:, 1] * along[0]
    return float(np.abs(across).max()) < _SMALLEST * float(np.hypot(*along))


def _parse_number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        point = "; write a point for the comma" if "," in word else ""
        raise ValueError(f"{word[:40]!r} is not a number{point}")
    return value


def _remove_duplicates(labels: Labels) -> Labels:
    """Keep one of each group of equal rows; the remaining rows are sorted, as in the original."""
    duplicates = len(labels.rows) - len(set(map(tuple, labels.rows.tolist())))
    if duplicates:
        labels.rows, kept = np.unique(labels.rows, axis=0, return_index=True)
        labels.lines = labels.lines[kept]
        labels.polygons = [labels.polygons[row] for row in kept] if labels.polygons else []
        labels.notes.append(f"{duplicates} duplicate labels are removed")
    return labels


@dataclass
class SampleCheck:
    """The result of checking an image and its labels."""

    status: int  # USABLE, BACKGROUND or CORRUPT
    size: tuple[int, int] = (0, 0)  # width, height
    labels: Labels = field(default_factory=lambda: parse_labels(""))
    notes: list[tuple[Subject, str]] = field(default_factory=list)


def check_sample(
    name: str,
    read_size: Callable[[], tuple[int, int]],
    read_labels: Callable[[], str | None],
    min_side: int = MIN_SIDE,
) -> SampleCheck:
    """Check an image and its labels.

    Args:
        name: name of the image in error messages.
        read_size: returns (width, height), or raises DataError.
        read_labels: returns the text of the label file, or None if there is none; raises OSError or
            ValueError if it cannot be read.
        min_side: least width and height in pixels.
    """
    try:
        size = read_size()
    except (DataError, OSError) as error:
        reason = str(error).removeprefix(f"{name}: ")
        return SampleCheck(CORRUPT, notes=[(Subject.IMAGE, f"skipped, {reason}")])
    if min(size) < min_side:
        reason = f"skipped, {size[0]}x{size[1]} pixels are fewer than {min_side}x{min_side}"
        return SampleCheck(CORRUPT, notes=[(Subject.IMAGE, reason)])
    try:
        text = read_labels()
    except (DataError, OSError, ValueError) as error:
        reason = f"{getattr(error, 'strerror', None) or error}; {IMAGE_SKIPPED}"
        return SampleCheck(CORRUPT, notes=[(Subject.LABELS, reason)])
    if text is None:
        return SampleCheck(BACKGROUND, size)
    labels = parse_labels(text)
    notes = [(Subject.LINE, f"{error}; {LINE_SKIPPED}") for error in labels.errors[:MOST_ERRORS]]
    if (more := len(labels.errors) - MOST_ERRORS) > 0:
        notes.append((Subject.MORE, f"{more} more lines with errors are skipped"))
    notes += [(Subject.CLIPPED, line) for line in labels.clipped]
    notes += [(Subject.LABELS, note) for note in labels.notes]
    if labels.errors and not len(labels.rows):
        # Treating it as background would teach the model that the image is empty.
        reason = f"no valid line is left; {IMAGE_SKIPPED}"
        return SampleCheck(CORRUPT, notes=[*notes, (Subject.LABELS, reason)])
    return SampleCheck(USABLE if len(labels.rows) else BACKGROUND, size, labels, notes)


def build_scan(checks: Sequence[SampleCheck]) -> Scan:
    """Concatenate the results of several images into flat arrays."""
    polygons = [points for check in checks for points in _one_per_row(check.labels)]
    return Scan(
        status=np.array([check.status for check in checks], np.uint8),
        sizes=np.array([check.size for check in checks], np.int32).reshape(-1, 2),
        counts=np.array([len(check.labels.rows) for check in checks], np.int32),
        rows=np.concatenate([np.zeros((0, 5), np.float32), *(check.labels.rows for check in checks)]),
        lines=np.concatenate([np.zeros(0, np.int32), *(check.labels.lines for check in checks)]),
        outlined=np.array([len(points) for points in polygons], np.int32),
        points=np.concatenate([np.zeros((0, 2), np.float32), *polygons]),
        notes=_join_clipped(
            [Note(index, *note) for index, check in enumerate(checks) for note in check.notes]
        ),
    )


def _join_clipped(notes: Sequence[Note]) -> list[Note]:
    """Join the notes about clipped lines, which may be millions, to one: their count, and the first."""
    clipped = [note for note in notes if note.subject == Subject.CLIPPED]
    others = [note for note in notes if note.subject != Subject.CLIPPED]
    if clipped:
        others.append(Note(clipped[0].index, Subject.CLIPPED, f"{len(clipped)} {clipped[0].text}"))
    return others


def _one_per_row(labels: Labels) -> list[np.ndarray]:
    return labels.polygons or [np.zeros((0, 2), np.float32)] * len(labels.rows)
