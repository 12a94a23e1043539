"""Find the images of a dataset, and the label file of each."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from utils.base.errors import DataError
from utils.base.inputs import read_file
from utils.base.limits import LIST
from utils.base.log import LOG
from utils.base.paths import decode_text, path_hints
from utils.data.images import IMAGE_SUFFIXES
from utils.data.packed import PackedPaths

# Have links to whole disks, and no images of a dataset.
_SYSTEM_FOLDERS = frozenset((os.path.abspath(os.sep), "/dev", "/proc", "/run", "/sys"))
_OTHER_FORMATS = (".avif", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jxl")  # of images


def list_images(sources: Sequence[Path], root: Path | None = None) -> PackedPaths:
    """List the images of folders (searched recursively) and text files, sorted, without duplicates.

    Args:
        sources: folders and text files.
        root: folder of the dataset, where the paths of text files are looked for as well.

    Raises:
        DataError: a source does not exist, there are no images, or none of a text file's images exists.
    """
    found: set[str] = set()
    for source in sources:
        if os.path.realpath(source) in _SYSTEM_FOLDERS:
            raise DataError(f"{source}: a folder of the system, expected one of images")
        if source.is_dir():
            found.update(_walk(source))
        elif source.is_file():
            found.update(_read_list(source, root))
        else:
            raise DataError(f"{source}: no such folder or list of images{path_hints(source)}")
    images = [path for path in found if path.lower().endswith(IMAGE_SUFFIXES)]
    names, others = ", ".join(map(str, sources)), _describe_others(found)
    if not images:
        raise DataError(f"{names}: no images found ({' '.join(s[1:] for s in IMAGE_SUFFIXES)}){others}")
    if others:
        LOG.warning(f"{names}{others}")
    return PackedPaths.of(sorted(images))


def _describe_others(files: Iterable[str]) -> str:
    """Return how many images of formats that are not used in datasets there are; empty if there are none."""
    suffixes = (os.path.splitext(file)[1].lower() for file in files)  # noqa: PTH122 - faster than a Path
    counts = Counter(suffix for suffix in suffixes if suffix in _OTHER_FORMATS)
    if not counts:
        return ""
    found = ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items()))
    return f"; not used: {found}: rename .jfif to .jpg, convert others to .jpg or .png"


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
        if real in seen or real in _SYSTEM_FOLDERS:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (f"{parent}{os.sep}{name}" for name in files if not name.startswith("."))


def _read_list(file: Path, root: Path | None) -> list[str]:
    """Return the absolute paths of a list, one per line.

    Lines that start with `./` are relative to the list. Others are looked for relative to the list, the
    folder of the dataset and the current folder; backslashes are read as slashes if that is a file.

    Raises:
        DataError: the list cannot be read, or none of its files exists.
    """
    try:
        text = decode_text(read_file(file, LIST), "surrogateescape")
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    bases = list(dict.fromkeys((file.parent.absolute(), *([root.absolute()] if root else []), Path.cwd())))
    lines = list(filter(None, map(str.strip, text.splitlines())))
    paths, missing, turned = [], [], []
    for line in lines:
        path = _find(line, bases)
        if path is None and "\\" in line and (path := _find(line.replace("\\", "/"), bases)) is not None:
            turned.append(line)
        if path is None:
            missing.append(line)
        paths.append(path or os.path.abspath(line))
    if turned:
        LOG.warning(
            f"{file}: {len(turned)} paths have backslashes, which only Windows reads as folders; "
            f"they are read as slashes, first: {turned[0]}"
        )
    if missing:
        message = _describe_missing(file, missing, len(lines), bases)
        if len(missing) == len(lines):
            raise DataError(message)
        LOG.warning(message)
    return paths


def _find(line: str, bases: Sequence[Path]) -> str | None:
    """Return the absolute path of a line of a list, or None if there is no such file."""
    candidates = (base / line for base in (bases[:1] if line.startswith("./") else bases))
    return next((os.path.abspath(path) for path in candidates if path.exists()), None)


def _describe_missing(file: Path, missing: Sequence[str], count: int, bases: Sequence[Path]) -> str:
    """Say where the images of a list have been looked for, and what may be wrong with their paths."""
    first = missing[0]
    if Path(first).is_absolute():
        where = "it is an absolute path, perhaps of another machine"
    else:
        where = f"it was looked for in {', '.join(map(str, bases[:1] if first.startswith('./') else bases))}"
    where += path_hints(bases[0] / first)
    parts = Path(first.replace("\\", "/")).parts
    shorter = (Path(*parts[start:]) for start in range(1, len(parts)))
    if found := next((base / path for path in shorter for base in bases if (base / path).is_file()), None):
        where += f"; found {found}: shorten the paths of the list"
    return f"{file}: {len(missing)} of {count} images do not exist, first: {first}; {where}"
