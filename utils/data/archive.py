"""Unpack zip and tar archives from untrusted sources: only below a folder, and only up to a size."""

from __future__ import annotations

import lzma
import os
import stat
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from utils.base.errors import DataError

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_BYTES = 200 * 2**30  # unpacked; COCO is a tenth of that
_ANY_RATIO = 2**30  # bytes; archives that unpack to less may have any compression ratio
_MAX_RATIO = 100  # images hardly shrink, label files about tenfold
_MAX_MEMBERS = 5_000_000
_JUNK = ("__MACOSX", ".DS_Store")
_DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)


def is_archive(path: Path | str) -> bool:
    """Return whether a file name is that of an archive which `safe_unpack` supports."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def safe_unpack(archive: Path, folder: Path, *, limit: int = MAX_BYTES) -> Path:
    """Unpack an archive into `folder` atomically; return `folder`.

    Files that are in `folder` already stay, unless the archive has one of the same name. Permissions,
    owners and times in the archive are ignored.

    Args:
        archive: zip, or tar with or without gzip, bzip2 or xz.
        folder: where to; created if it does not exist.
        limit: maximum number of bytes to unpack.

    Raises:
        DataError: damaged; too large; or a member has an absolute path, a path with `..`, is a link or a
            device, or occurs twice.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        fresh = Path(temporary) / "new"
        fresh.mkdir()
        try:
            checker = _MemberChecker(archive, fresh, limit)
            if zipfile.is_zipfile(archive):
                _unpack_zip(archive, fresh, checker)
            else:
                _unpack_tar(archive, fresh, checker)
        except _DAMAGE as error:
            raise DataError(f"{archive}: damaged, or not an archive of a known kind ({error})") from error
        except OSError as error:
            raise DataError(f"{archive}: cannot be unpacked ({error.strerror or error})") from error
        merge(fresh, folder)
    return folder


def merge(source: Path, target: Path) -> None:
    """Move all of `source` into `target`: by one rename if `target` does not exist."""
    if source.is_dir() and target.is_dir():
        for child in source.iterdir():
            merge(child, target / child.name)
    elif target.is_dir() or (source.is_dir() and target.exists()):
        raise DataError(f"{target}: a file and a folder have the same name; move it away first")
    else:
        os.replace(source, target)


class _MemberChecker:
    """Checker of the members of an archive, one after another, and of the sum of their sizes."""

    def __init__(self, archive: Path, folder: Path, limit: int) -> None:
        self.archive = archive
        self.folder = folder
        self.limit = min(limit, max(_ANY_RATIO, _MAX_RATIO * archive.stat().st_size))
        self.bytes = 0
        self.members = 0

    def accept(self, name: str, size: int, kind: str) -> bool:
        """Return whether to unpack a member: False for junk files.

        Args:
            name: name in the archive.
            size: bytes, unpacked.
            kind: file, folder, or what else it is.

        Raises:
            DataError: the member is not safe, or the archive is too large.
        """
        path = PurePosixPath(name)
        if any(part in _JUNK for part in path.parts):
            return False
        if kind not in ("file", "folder"):
            raise DataError(f"{self.archive}: {name!r} is a {kind}; only files and folders are unpacked")
        unusual = "\\" in name or "\0" in name or (path.parts and ":" in path.parts[0])
        if path.is_absolute() or ".." in path.parts or unusual:
            raise DataError(f"{self.archive}: {name!r} would be written outside of the folder; not unpacked")
        self.bytes += size
        self.members += 1
        if self.bytes > self.limit or self.members > _MAX_MEMBERS:
            raise DataError(f"{self.archive}: unpacks to more than {self.limit:,} bytes; not unpacked")
        if kind == "file" and (self.folder / path).exists():
            raise DataError(f"{self.archive}: {name!r} occurs twice; not unpacked")
        return True


def _unpack_zip(archive: Path, folder: Path, checker: _MemberChecker) -> None:
    with zipfile.ZipFile(archive) as zipped:
        for info in zipped.infolist():
            if info.flag_bits & 1:
                raise DataError(f"{archive}: {info.filename} is encrypted; unpack it by hand")
            is_link = stat.S_ISLNK(info.external_attr >> 16)
            kind = "folder" if info.is_dir() else "link" if is_link else "file"
            # orig_filename: zipfile itself cuts names at a NUL and replaces backslashes on Windows
            if checker.accept(info.orig_filename, info.file_size, kind):
                zipped.extract(info, folder)


def _unpack_tar(archive: Path, folder: Path, checker: _MemberChecker) -> None:
    with tarfile.open(archive) as tar:
        # Python 3.11.3 and older have no filters; `checker` refuses what they refuse, and more.
        tar.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
        for info in tar:
            kind = "file" if info.isreg() else "folder" if info.isdir() else "link or device"
            if not checker.accept(info.name, info.size, kind):
                continue
            if kind == "folder":
                (folder / info.name).mkdir(parents=True, exist_ok=True)
            else:
                tar.extract(info, folder, set_attrs=False)
