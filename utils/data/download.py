"""Download the public datasets that data yamls name, and unpack their archives.

Downloads come from URLs only, after consent, never from a script. Archives are not trusted: they are unpacked
only below a folder, and only up to a size.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import stat
import struct
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from utils.base.download import download_file
from utils.base.errors import ConfigError, DataError, one_line
from utils.base.log import LOG
from utils.base.paths import command_for
from utils.data.own_folder import OwnFolder

ARCHIVE_SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_BYTES = 200 * 2**30  # unpacked; COCO is a tenth of that
_ANY_RATIO = 2**30  # bytes; archives that unpack to less may have any compression ratio
_MAX_RATIO = 100  # images hardly shrink, label files about tenfold
_MAX_MEMBERS = 5_000_000
_JUNK = ("__MACOSX", ".DS_Store")
_DAMAGE = (
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, NotImplementedError),
    *(ValueError, IndexError, OverflowError, struct.error),  # of names and sizes that cannot be
)


def is_archive(path: Path | str) -> bool:
    """Return whether a file name is that of an archive which `safe_unpack` supports."""
    return str(path).lower().endswith(ARCHIVE_SUFFIXES)


def unpack_archive(archive: Path, folder: Path) -> None:
    """Unpack the archive of a dataset into a folder of its own, see `OwnFolder`, and `safe_unpack`."""
    own = OwnFolder(folder, f"archive {archive.absolute()}", f"--data {archive}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
        own.add(safe_unpack(archive, Path(temporary) / "unpacked"))
    os.utime(folder)


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
            raise DataError(
                f"{archive}: damaged, or not an archive of a known kind ({one_line(error)})"
            ) from error
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


@dataclass(frozen=True)
class Download:
    """One file to download for a dataset."""

    url: str
    sha256: str | None = None
    size: int | None = None  # bytes
    into: str = "."  # folder below the dataset's root

    @property
    def file_name(self) -> str:
        """The last part of the URL's path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def __str__(self) -> str:
        size = f" ({self.size / 1e6:,.0f} MB)" if self.size else ""
        return f"{self.url}{size}"


def parse_downloads(value: Any, where: str) -> list[Download]:
    """Parse the `download:` value of a data yaml.

    Args:
        value: a URL, or a list of URLs and of mappings {url, sha256, size, into}; None for no download.
        where: name of the yaml, for error messages.

    Raises:
        ConfigError: any other value, above all the scripts of older yamls, which are never run.
    """
    if value is None:
        return []
    return [_parse(item, where) for item in (value if isinstance(value, list) else [value])]


def _parse(item: Any, where: str) -> Download:
    info = {"url": item} if isinstance(item, str) else item
    if not isinstance(info, dict) or not isinstance(info.get("url"), str):
        raise ConfigError(f"{where}: download: expected URLs or mappings with url:, got {item!r}")
    url = info["url"].strip()
    if not re.fullmatch(r"https?://[^\s/]+/\S+", url):
        first = url.splitlines()[0][:60] if url else ""
        raise ConfigError(
            f"{where}: download: {first!r} is not an http(s) URL; scripts in a yaml are not run"
        )
    if unknown := set(info) - {"url", "sha256", "size", "into"}:
        raise ConfigError(f"{where}: download: unknown key {sorted(map(str, unknown))[0]!r} beside url")
    sha256, size, into = info.get("sha256"), info.get("size"), str(info.get("into", "."))
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)):
        raise ConfigError(f"{where}: download: sha256 {sha256!r} is not text of 64 hexadecimal digits")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ConfigError(f"{where}: download: size {size!r} is not a number of bytes")
    if PurePosixPath(into).is_absolute() or ".." in PurePosixPath(into).parts or "\\" in into:
        raise ConfigError(f"{where}: download: into {into!r} has to be a folder below path")
    return Download(url, sha256, size, into)


def download_data(
    downloads: Sequence[Download], root: Path, *, allowed: bool = False, name: str = "data yaml"
) -> None:
    """Download files into the folder of a dataset, and unpack the archives among them.

    An archive whose only entry is a folder with the name of `root` becomes `root`; any other is unpacked
    below it. After an error, a second run keeps the files that were downloaded.

    Args:
        downloads: the result of `parse_downloads`.
        root: folder of the dataset.
        allowed: download without asking the user.
        name: name of the yaml, for messages.

    Raises:
        ConfigError: the user has not agreed, or there is no terminal to ask; the folder is not one of a
            dataset.
        DataError: the folder has files of another origin; a file cannot be downloaded, or has another size
            or hash than expected.
    """
    if not downloads:
        raise DataError(f"{name}: its images are not in {root}, and it names no download")
    own = OwnFolder(root, "\n".join(item.url for item in downloads), f"{name}: path")
    if not allowed and not _user_agrees(downloads, root, name):
        urls = ", ".join(item.url for item in downloads)
        command = f"{command_for('-m utils.data get')} {name}"
        raise ConfigError(f"{name}: its images are not in {root}; `{command}` downloads {urls}")
    kept = root.parent / f".{root.name}-downloads"
    for number, item in enumerate(downloads):
        LOG.info(f"Downloading {item}")
        if is_archive(item.file_name):
            archive = kept / f"{number}-{item.file_name}"
            download_file(item.url, archive, sha256=item.sha256, size=item.size)
            _unpack_into(own, archive, item.into)
        else:
            own.claim([PurePosixPath(item.into, item.file_name).as_posix()])
            download_file(item.url, root / item.into / item.file_name, sha256=item.sha256, size=item.size)
    shutil.rmtree(kept, ignore_errors=True)


def _user_agrees(downloads: Sequence[Download], root: Path, name: str) -> bool:
    if not sys.stdin.isatty():
        return False
    LOG.info(f"{name}: its images are not in {root}. They can be downloaded from:")
    for item in downloads:
        LOG.info(f"  {item}")
    try:
        return input("Download them now? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _unpack_into(own: OwnFolder, archive: Path, into: str) -> None:
    # Unpacked beside the root, so that a partial dataset is never taken for the dataset.
    root = own.folder
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
        try:
            fresh = safe_unpack(archive, Path(folder) / "unpacked")
        except DataError:
            archive.unlink()  # the next run downloads it again
            raise
        children = list(fresh.iterdir())
        if len(children) == 1 and children[0].is_dir() and children[0].name == root.name:
            fresh, into = children[0], "."
        own.add(fresh, into)
