"""Find the images of a dataset, and the label file of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.base.errors import DataError
from utils.data.images import IMAGE_SUFFIXES
from utils.data.packed import PackedPaths


def list_images(sources: Sequence[Path]) -> PackedPaths:
    """List the images of folders (searched to any depth) and text lists, sorted, each once.

    Raises:
        DataError: a source that does not exist, or no image in any of them.
    """
    found: set[str] = set()
    for source in sources:
        if source.is_dir():
            found.update(_walk(source))
        elif source.is_file():
            found.update(_read_list(source))
        else:
            raise DataError(f"{source}: no such folder or list of images")
    images = [path for path in found if path.lower().endswith(IMAGE_SUFFIXES)]
    if not images:
        places = ", ".join(map(str, sources))
        raise DataError(f"{places}: no images there ({' '.join(s[1:] for s in IMAGE_SUFFIXES)})")
    return PackedPaths.of(sorted(images))


def label_path(image: Path) -> Path:
    """Where the labels of an image are: `labels` in place of the last folder `images`, and .txt."""
    return Path(label_name(str(image)))


def label_name(image: str) -> str:
    """As `label_path`, from text to text."""
    before, found, after = image.rpartition(f"{os.sep}images{os.sep}")
    moved = f"{before}{os.sep}labels{os.sep}{after}" if found else image
    return f"{os.path.splitext(moved)[0]}.txt"  # noqa: PTH122 - see there


def _walk(folder: Path) -> Iterator[str]:
    """Visible files below a folder; links to folders are followed, but not in circles."""
    seen: set[str] = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (f"{parent}{os.sep}{name}" for name in files if not name.startswith("."))


def _read_list(file: Path) -> Iterator[str]:
    """Paths of a list, one a line: relative to the list if written with `./` or found there, else to here."""
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    for line in filter(None, map(str.strip, text.splitlines())):
        beside = file.parent / line  # the line itself if that is absolute
        yield os.path.abspath(beside if line.startswith("./") or beside.exists() else line)
