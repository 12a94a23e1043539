"""Look at one picture with its labels: can it be used, and what is there to tell about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from utils.base.errors import DataError
from utils.data.label_cache import BACKGROUND, CORRUPT, USABLE, Note, Scan
from utils.data.labels import Labels, parse_labels

MIN_SIDE = 10  # pixels; smaller pictures are mistakes
LINE_LOST = "the line is skipped"
PICTURE_LOST = "the picture is skipped"


@dataclass
class Verdict:
    """What is found about one picture."""

    status: int
    size: tuple[int, int] = (0, 0)
    labels: Labels = field(default_factory=lambda: parse_labels(""))
    notes: list[tuple[bool, str]] = field(default_factory=list)  # about the labels?, text


def judge(name: str, look: Callable[[], tuple[int, int]], labels: Callable[[], str | None]) -> Verdict:
    """Judge a picture.

    Args:
        name: what its messages begin with.
        look: gives (width, height), or raises a DataError.
        labels: gives the text of its label file, None where there is none.
    """
    try:
        size = look()
    except (DataError, OSError) as error:
        reason = str(error).removeprefix(f"{name}: ")
        return Verdict(CORRUPT, notes=[(False, f"skipped, {reason}")])
    if min(size) < MIN_SIDE:
        reason = f"skipped, {size[0]}x{size[1]} pixels are fewer than {MIN_SIDE}x{MIN_SIDE}"
        return Verdict(CORRUPT, notes=[(False, reason)])
    try:
        text = labels()
    except OSError as error:
        return Verdict(CORRUPT, notes=[(True, f"{error.strerror or error}; {PICTURE_LOST}")])
    if text is None:
        return Verdict(BACKGROUND, size)
    found = parse_labels(text)
    notes = [(True, f"{fault}; {LINE_LOST}") for fault in found.faults]
    notes += [(True, note) for note in found.notes]
    if found.faults and not len(found.rows):
        # As a background it would teach that there is nothing, of which we know the contrary.
        return Verdict(CORRUPT, notes=[*notes, (True, f"no good line is left; {PICTURE_LOST}")])
    return Verdict(USABLE if len(found.rows) else BACKGROUND, size, found, notes)


def pack(found: Sequence[Verdict]) -> Scan:
    """Put what was found about pictures into flat arrays."""
    outlines = [points for item in found for points in _outlines(item.labels)]
    return Scan(
        status=np.array([item.status for item in found], np.uint8),
        sizes=np.array([item.size for item in found], np.int32).reshape(-1, 2),
        counts=np.array([len(item.labels.rows) for item in found], np.int32),
        rows=np.concatenate([np.zeros((0, 5), np.float32), *(item.labels.rows for item in found)]),
        lines=np.concatenate([np.zeros(0, np.int32), *(item.labels.lines for item in found)]),
        outlined=np.array([len(points) for points in outlines], np.int32),
        points=np.concatenate([np.zeros((0, 2), np.float32), *outlines]),
        notes=[Note(index, *note) for index, item in enumerate(found) for note in item.notes],
    )


def _outlines(labels: Labels) -> list[np.ndarray]:
    return labels.polygons or [np.zeros((0, 2), np.float32)] * len(labels.rows)
