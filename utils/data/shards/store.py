"""Local copies of shards: those on a disk are used in place, remote ones go to the cache folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError, DataError, one_line
from utils.base.log import LOG
from utils.base.paths import atomic_write, cache_folder
from utils.base.processes import lock_file
from utils.data.shards.urls import check_url, is_url, without_query

LIMIT_VARIABLE = "YOLOV5_SHARDS_GB"
_LIMIT_GB = 32.0  # default limit of the copies
_FREE_GB = 1.0  # to be left free on the disk
_TRIES, _PAUSE = 3, 1.0  # of a download; seconds before the second try
_CHUNK = 2**22  # bytes
_STAMPS = (  # names that stores give to the version or time of a file
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "checksum"),
    *("mtime", "LastModified", "Last-Modified", "last_modified", "updated"),
)
_STALE = 86400.0  # seconds after which a partial download belongs to no running process


class DownloadError(DataError):
    """A shard that cannot be downloaded now; unlike a bad image, it cannot be replaced by another one."""


@dataclass(frozen=True)
class ShardInfo:
    """The version of a shard: an index or a copy is valid while these values stay the same."""

    url: str
    size: int  # bytes
    stamp: str  # modification time, ETag or what else the server has; may be empty


def shard_info(url: str) -> ShardInfo:
    """Get the size and version of a shard.

    Raises:
        ConfigError: the URL scheme is not supported, or needs a package that is not installed.
        DownloadError: the shard does not exist.
    """
    if not is_url(url):
        try:
            stat = os.stat(url)  # noqa: PTH116 - called for thousands of shards
        except OSError as error:
            raise DownloadError(f"{url}: {error.strerror or error}") from error
        return ShardInfo(url, stat.st_size, str(stat.st_mtime_ns))
    with _as_download_error(url):
        files, path = _open_file_system(url)
        found = files.info(path)
    size = found.get("size")
    if size is None:
        raise DownloadError(f"{url}: the server does not report the size of the file")
    stamp = next((str(found[name]) for name in _STAMPS if found.get(name)), "")
    return ShardInfo(url, int(size), stamp)


def local_copy(info: ShardInfo, sha256: str | None = None) -> Path:
    """Return a local file with the shard's content; download and check it if there is none yet.

    Args:
        info: the shard.
        sha256: expected digest, from the shard's index.

    Raises:
        DownloadError: the shard cannot be downloaded, or its digest is another one.
    """
    if not is_url(info.url):
        return Path(info.url)
    path = _copy_path(info, sha256)
    versioned = bool(sha256 or info.stamp)  # otherwise a copy may be of an older version
    with lock_file(path.with_suffix(".lock")):
        if not (versioned and path.is_file() and path.stat().st_size == info.size):
            free_space(info.size, keep=path)
            _download(info, path, sha256)
        with suppress(OSError):
            os.utime(path)  # marks it as used now: `free_space` removes others first
    return path


def keep_as(info: ShardInfo, sha256: str, copy: Path) -> None:
    """Rename a copy that was downloaded without a digest so that `local_copy` finds it by its digest."""
    if is_url(info.url):
        with suppress(OSError):  # then it is downloaded once more
            os.replace(copy, _copy_path(info, sha256))


def _copy_path(info: ShardInfo, sha256: str | None) -> Path:
    # Signatures in the query of a URL change with each request; size and digest identify the shard.
    key = f"{without_query(info.url)}\0{info.size}\0{info.stamp}\0{sha256 or ''}"
    return shards_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"


def shards_folder() -> Path:
    """Return the folder of the downloaded copies."""
    return cache_folder() / "shards"


def read_small(url: str) -> bytes | None:
    """Return the content of a small file beside a shard, or None if there is none."""
    try:
        files, path = _open_file_system(url)
        content: bytes = files.cat_file(path)
    except ConfigError:
        raise
    except Exception:  # each kind of store has its own errors for `not found`
        return None
    return content


def free_space(size: int, keep: Path) -> None:
    """Remove the least recently used copies until one more of `size` bytes is within the limit."""
    folder = shards_folder()
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for path in folder.glob("*.tar"):
        with suppress(OSError):  # another process has just removed it
            stat = path.stat()
            copies.append((stat.st_mtime, stat.st_size, path))
    for partial in folder.glob(".*.part"):  # left by a process that was killed
        with suppress(OSError):
            if time.time() - partial.stat().st_mtime > _STALE:
                partial.unlink()
    used = sum(copy[1] for copy in copies)
    free = shutil.disk_usage(folder).free
    limit = min(_limit_bytes(), used + free - _FREE_GB * 1e9)
    for _, held, path in sorted(copies):
        if used + size <= limit:
            break
        if path != keep:
            path.unlink(missing_ok=True)  # processes that have it open can still read it
            used -= held


def _limit_bytes() -> float:
    text = os.environ.get(LIMIT_VARIABLE, str(_LIMIT_GB))
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise ConfigError(f"${LIMIT_VARIABLE}={text}: expected a number of gigabytes such as 100") from error


def _download(info: ShardInfo, path: Path, sha256: str | None) -> None:
    for attempt in range(_TRIES):
        try:
            digest = _copy(info, path)
            break
        except DownloadError as error:
            if attempt + 1 == _TRIES:
                raise
            LOG.warning(f"{error}; trying again")
            time.sleep(_PAUSE * 4**attempt)
    if sha256 and digest != sha256:
        path.unlink(missing_ok=True)
        raise DownloadError(
            f"{info.url}: is not the shard that its index describes; remove the index, or replace it"
        )


def _copy(info: ShardInfo, path: Path) -> str:
    """Download a shard once; return its SHA-256."""
    digest = hashlib.sha256()
    with _as_download_error(info.url):
        files, remote = _open_file_system(info.url)
        with files.open(remote, "rb", block_size=_CHUNK) as source, atomic_write(path) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                digest.update(chunk)
            if target.tell() != info.size:
                raise DownloadError(f"{info.url}: received {target.tell()} bytes, expected {info.size}")
    return digest.hexdigest()


def _open_file_system(url: str) -> tuple[Any, str]:
    """Return a new fsspec file system for a URL, and the path in it; connections do not survive a fork."""
    import fsspec

    check_url(url)
    try:
        files, path = fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        reason = one_line(error)
        raise ConfigError(
            f"{url}: cannot be opened ({reason}); pip install the package for it, such as aiohttp or s3fs"
        ) from error
    return files, path


@contextmanager
def _as_download_error(url: str) -> Iterator[None]:
    try:
        yield
    except (ConfigError, DataError):
        raise
    except Exception as error:  # each kind of store has its own errors; all mean the same here
        reason = "not found" if isinstance(error, FileNotFoundError) else one_line(error)
        raise DownloadError(f"{url}: cannot be read ({reason})") from error
