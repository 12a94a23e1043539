"""Read the label file of an image: one object a line, `class cx cy w h` or `class x1 y1 x2 y2 x3 y3 ...`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from utils.base.errors import DataError
from utils.data.label_cache import BACKGROUND, CORRUPT, USABLE, Note, Scan
from utils.ops.boxes import segments2boxes

BOX_VALUES = 5
MIN_POLYGON_VALUES = 7  # a class and three points


@dataclass
class Labels:
    """What a label file says."""

    rows: np.ndarray  # (n, 5) float32: class, xywhn
    lines: np.ndarray  # (n,) int32: line of each row in its file, from 1
    polygons: list[np.ndarray] = field(default_factory=list)  # (k, 2) a row, fractions; k = 0 for boxes
    faults: list[str] = field(default_factory=list)  # one a line that was left out
    notes: list[str] = field(default_factory=list)  # worth saying, but nothing was lost


def parse_labels(text: str) -> Labels:
    """Read the lines of a label file, each by its own; bad ones are left out and told in `faults`.

    If no line is a polygon, there are no polygons at all. Of equal rows one is kept.
    """
    numbered = [
        (number, words) for number, line in enumerate(text.splitlines(), 1) if (words := line.split())
    ]
    labels = _all_boxes(numbered) or _line_by_line(numbered)
    return _without_doubles(labels)


def _all_boxes(numbered: Sequence[tuple[int, list[str]]]) -> Labels | None:
    """Read a file of faultless boxes at once; None if it is not one."""
    if any(len(words) != BOX_VALUES for _, words in numbered):
        return None
    try:
        rows = np.array([words for _, words in numbered], np.float32).reshape(-1, BOX_VALUES)
    except ValueError:
        return None
    whole = (rows[:, 0] % 1 == 0).all()
    if not (whole and (rows >= 0).all() and (rows[:, 1:] <= 1).all()):  # not so if any is NaN, too
        return None
    return Labels(rows, np.array([number for number, _ in numbered], np.int32))


def _line_by_line(numbered: Sequence[tuple[int, list[str]]]) -> Labels:
    labels = Labels(np.zeros((0, BOX_VALUES), np.float32), np.zeros(0, np.int32))
    rows, lines = [], []
    for number, words in numbered:
        try:
            values = _numbers(words)
        except ValueError as error:
            labels.faults.append(f"line {number}: {error}")
            continue
        points = np.zeros((0, 2), np.float32)
        if len(values) >= MIN_POLYGON_VALUES:
            points = values[1:].reshape(-1, 2)
            values = np.concatenate((values[:1], segments2boxes([points])[0]))
        rows.append(values)
        lines.append(number)
        labels.polygons.append(points)
    if rows:
        labels.rows, labels.lines = np.stack(rows), np.array(lines, np.int32)
    if not any(len(points) for points in labels.polygons):
        labels.polygons = []
    return labels


def _numbers(words: Sequence[str]) -> np.ndarray:
    """Turn the words of a line into numbers, or raise ValueError with what is wrong."""
    count = len(words)
    if count != BOX_VALUES and (count < MIN_POLYGON_VALUES or count % 2 == 0):
        raise ValueError(f"{count} values; a box has 5, a polygon 1 and at least 3 pairs")
    values = np.array([_number(word) for word in words], np.float32)
    if values[0] < 0 or values[0] % 1:
        raise ValueError(f"class {words[0]} is not a whole number from 0 on")
    wrong = (values[1:] < 0) | (values[1:] > 1)
    if wrong.any():
        raise ValueError(f"{words[1 + int(wrong.argmax())]} is not in 0-1 (coordinates are fractions)")
    return values


def _number(word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise ValueError(f"{word[:40]!r} is not a number")
    return value


def _without_doubles(labels: Labels) -> Labels:
    """Keep one of each set of equal rows; as in the original the rows are sorted then."""
    doubles = len(labels.rows) - len(set(map(tuple, labels.rows.tolist())))
    if doubles:
        labels.rows, kept = np.unique(labels.rows, axis=0, return_index=True)
        labels.lines = labels.lines[kept]
        labels.polygons = [labels.polygons[row] for row in kept] if labels.polygons else []
        labels.notes.append(f"{doubles} of its labels came twice and count once")
    return labels


MIN_SIDE = 10  # pixels; smaller images are mistakes
LINE_LOST = "the line is skipped"
IMAGE_LOST = "the image is skipped"


@dataclass
class SampleCheck:
    """What is found about one image."""

    status: int
    size: tuple[int, int] = (0, 0)
    labels: Labels = field(default_factory=lambda: parse_labels(""))
    notes: list[tuple[bool, str]] = field(default_factory=list)  # about the labels?, text


def check_sample(
    name: str, look: Callable[[], tuple[int, int]], labels: Callable[[], str | None]
) -> SampleCheck:
    """Judge an image.

    Args:
        name: what its messages begin with.
        look: gives (width, height), or raises a DataError.
        labels: gives the text of its label file, None where there is none.
    """
    try:
        size = look()
    except (DataError, OSError) as error:
        reason = str(error).removeprefix(f"{name}: ")
        return SampleCheck(CORRUPT, notes=[(False, f"skipped, {reason}")])
    if min(size) < MIN_SIDE:
        reason = f"skipped, {size[0]}x{size[1]} pixels are fewer than {MIN_SIDE}x{MIN_SIDE}"
        return SampleCheck(CORRUPT, notes=[(False, reason)])
    try:
        text = labels()
    except OSError as error:
        return SampleCheck(CORRUPT, notes=[(True, f"{error.strerror or error}; {IMAGE_LOST}")])
    if text is None:
        return SampleCheck(BACKGROUND, size)
    found = parse_labels(text)
    notes = [(True, f"{fault}; {LINE_LOST}") for fault in found.faults]
    notes += [(True, note) for note in found.notes]
    if found.faults and not len(found.rows):
        # As a background it would teach that there is nothing, of which we know the contrary.
        return SampleCheck(CORRUPT, notes=[*notes, (True, f"no good line is left; {IMAGE_LOST}")])
    return SampleCheck(USABLE if len(found.rows) else BACKGROUND, size, found, notes)


def pack(found: Sequence[SampleCheck]) -> Scan:
    """Put what was found about images into flat arrays."""
    polygons = [points for item in found for points in _polygons(item.labels)]
    return Scan(
        status=np.array([item.status for item in found], np.uint8),
        sizes=np.array([item.size for item in found], np.int32).reshape(-1, 2),
        counts=np.array([len(item.labels.rows) for item in found], np.int32),
        rows=np.concatenate([np.zeros((0, 5), np.float32), *(item.labels.rows for item in found)]),
        lines=np.concatenate([np.zeros(0, np.int32), *(item.labels.lines for item in found)]),
        outlined=np.array([len(points) for points in polygons], np.int32),
        points=np.concatenate([np.zeros((0, 2), np.float32), *polygons]),
        notes=[Note(index, *note) for index, item in enumerate(found) for note in item.notes],
    )


def _polygons(labels: Labels) -> list[np.ndarray]:
    return labels.polygons or [np.zeros((0, 2), np.float32)] * len(labels.rows)
