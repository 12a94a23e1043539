"""Find the images of a dataset, and the label file of each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from utils.base.errors import DataError
from utils.data.images import IMAGE_SUFFIXES
from utils.data.packed import PackedPaths


def list_images(sources: Sequence[Path]) -> PackedPaths:
    """List the images of folders (searched recursively) and text files, sorted, without duplicates.

    Raises:
        DataError: a source does not exist, or there are no images.
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
        names = ", ".join(map(str, sources))
        raise DataError(f"{names}: no images found ({' '.join(s[1:] for s in IMAGE_SUFFIXES)})")
    return PackedPaths.of(sorted(images))


def label_path(image: Path) -> Path:
    """Return the path of an image's label file: .txt, and `labels` for the last folder `images`."""
    return Path(label_name(str(image)))


def label_name(image: str) -> str:
    """Return the same as `label_path`, from text to text."""
    before, found, after = image.rpartition(f"{os.sep}images{os.sep}")
    moved = f"{before}{os.sep}labels{os.sep}{after}" if found else image
    return f"{os.path.splitext(moved)[0]}.txt"  # noqa: PTH122 - faster than a Path


def _walk(folder: Path) -> Iterator[str]:
    """Yield visible files below a folder; symbolic links to folders are followed once."""
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
    """Yield the paths of a list, one per line.

    They are relative to the list if they start with `./` or exist there, otherwise to the current folder.
    """
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    for line in filter(None, map(str.strip, text.splitlines())):
        beside = file.parent / line  # the line itself if it is absolute
        yield os.path.abspath(beside if line.startswith("./") or beside.exists() else line)
