"""Say what a source contains besides the images and videos that are read, and what to type for it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from utils.data.image_formats import HEAD, UNREADABLE, convert, image_format
from utils.data.images import SOURCE_SUFFIXES, is_video

_MOST = 10_000  # files that are examined below a folder
_NO_IMAGES = (".txt", ".json", ".xml", ".csv", ".yaml")  # labels, often as many as images: not opened


def sniff(path: Path) -> str:
    """Return the format of a file by its content, such as `JPEG`; empty if it is no image or unreadable."""
    try:
        with path.open("rb") as file:
            return image_format(file.read(HEAD))
    except OSError:
        return ""


def describe_unused(files: Iterable[Path]) -> str:
    """Return what to do with files that are images by content, but not by suffix; empty if there are none."""
    counts: Counter[tuple[str, str]] = Counter()
    candidates = (file for file in files if file.suffix.lower() not in _NO_IMAGES)
    for file in islice(candidates, _MOST):
        if found := sniff(file):
            counts[file.suffix, found] += 1
    return "; ".join(_advice(count, *kind) for kind, count in counts.most_common(3))


def _advice(count: int, suffix: str, found: str) -> str:
    images = f"{count} {found} image{'s' if count > 1 else ''}"
    named = f"{images} with the suffix {suffix}" if suffix else f"{images} without a suffix"
    if found in UNREADABLE:
        return f"{named}: convert to JPEG, for example: {convert(found)}"
    return f"{named}: give one by its name, or rename to {'.jpg' if found == 'JPEG' else '.png'}"


def describe_subfolders(folder: Path) -> str:
    """Return how many images and videos are in the subfolders, and the glob to type; empty if none are."""
    counts: Counter[str] = Counter()
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in sorted(folders) if not name.startswith(".")]
        if Path(parent) != folder:
            suffixes = (Path(name).suffix for name in files if not name.startswith("."))
            counts.update(each for each in suffixes if each.lower() in SOURCE_SUFFIXES or is_video(each))
        if counts.total() >= _MOST:
            break
    if not counts:
        return ""
    (suffix, count), more = (
        counts.most_common(1)[0],
        "" if len(counts) == 1 else f" of {counts.total()} files",
    )
    return f"its subfolders have {count} {suffix}{more}: --source '{folder}/**/*{suffix}'"
