"""Unpack zip and tar archives that nobody has looked into: nothing leaves the folder, nothing explodes."""

from __future__ import annotations

import lzma
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO

from utils.base.errors import DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
LARGEST = 200 * 2**30  # bytes unpacked; all of COCO is a tenth of that
_HARMLESS = 2**30  # an archive that unpacks to less than this may be packed as tightly as it likes
_MOST_RATIO = 100  # images hardly shrink, label files about tenfold
_MOST_ENTRIES = 5_000_000
_JUNK = ("__MACOSX", ".DS_Store")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


@dataclass(frozen=True)
class _Entry:
    """One member of an archive, whatever its format."""

    name: str
    size: int
    kind: str  # file, folder, or what it is instead
    open: Callable[[], IO[bytes]]


def is_archive(path: Path | str) -> bool:
    """Tell from its name whether `safe_unpack` takes a file."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def safe_unpack(archive: Path, folder: Path, *, limit: int = LARGEST) -> Path:
    """Unpack an archive into `folder`, all of it or nothing; return `folder`.

    What `folder` holds already stays, but files of the same name are replaced. Permissions and owners in
    the archive are ignored.

    Args:
        archive: zip, or tar with or without gzip, bzip2 or xz.
        folder: where to; made if needed.
        limit: most bytes to unpack.

    Raises:
        DataError: damaged; too large unpacked; or an entry has an absolute path, climbs out with `..`, is
            a link or a device, or comes twice.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        try:
            with _entries(archive) as entries:
                _write_all(archive, entries, fresh, limit)
        except _DAMAGE as error:
            raise DataError(f"{archive}: damaged, or no archive of a known kind ({error})") from error
        except OSError as error:
            raise DataError(f"{archive}: cannot be unpacked ({error.strerror or error})") from error
        merge(fresh, folder)
    return folder


def merge(source: Path, target: Path) -> None:
    """Move all of `source` into `target`: in one step where `target` does not exist."""
    if source.is_dir() and target.is_dir():
        for child in source.iterdir():
            merge(child, target / child.name)
    elif target.is_dir() or (source.is_dir() and target.exists()):
        raise DataError(f"{target}: a file and a folder of that name meet; move it away first")
    else:
        os.replace(source, target)


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as zipped:
            yield _zip_entries(zipped, archive)
    else:
        with tarfile.open(archive) as tar:
            yield _tar_entries(tar)


def _zip_entries(zipped: zipfile.ZipFile, archive: Path) -> Iterator[_Entry]:
    for info in zipped.infolist():
        if info.flag_bits & 1:
            raise DataError(f"{archive}: {info.filename} is encrypted; unpack it by hand")
        mode = info.external_attr >> 16
        kind = "folder" if info.is_dir() else "link" if stat.S_ISLNK(mode) else "file"
        # orig_filename: zipfile itself cuts names at a NUL and turns backslashes on Windows
        yield _Entry(info.orig_filename, info.file_size, kind, partial(zipped.open, info))


def _tar_entries(tar: tarfile.TarFile) -> Iterator[_Entry]:
    for info in tar:
        kind = "file" if info.isreg() else "folder" if info.isdir() else "link or device"

        def content(info: tarfile.TarInfo = info) -> IO[bytes]:
            file = tar.extractfile(info)
            assert file is not None  # only asked of regular files
            return file

        yield _Entry(info.name, info.size, kind, content)


def _write_all(archive: Path, entries: Iterator[_Entry], folder: Path, limit: int) -> None:
    largest = min(limit, max(_HARMLESS, _MOST_RATIO * archive.stat().st_size))
    total = 0
    for count, entry in enumerate(entries):
        path = PurePosixPath(entry.name)
        if any(part in _JUNK for part in path.parts):
            continue
        _check_entry(archive, entry, path)
        total += entry.size
        if total > largest or count > _MOST_ENTRIES:
            raise DataError(f"{archive}: unpacks to more than {largest:,} bytes; not unpacked")
        target = folder / path
        if entry.kind == "folder":
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise DataError(f"{archive}: {entry.name!r} comes twice; not unpacked")
        with entry.open() as content, target.open("xb") as file:
            shutil.copyfileobj(content, file, 2**20)


def _check_entry(archive: Path, entry: _Entry, path: PurePosixPath) -> None:
    if entry.kind not in ("file", "folder"):
        raise DataError(f"{archive}: {entry.name!r} is a {entry.kind}; only files and folders are unpacked")
    strange = "\\" in entry.name or "\0" in entry.name or ":" in path.parts[0] if path.parts else False
    if path.is_absolute() or ".." in path.parts or strange:
        raise DataError(f"{archive}: {entry.name!r} would be written outside of the folder; not unpacked")
