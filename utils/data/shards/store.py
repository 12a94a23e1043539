"""Local copies of shards: what is on a disk stays there, others are downloaded whole and kept for a while."""

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
from utils.data.shards.urls import check_address, is_address, without_query

LIMIT_VARIABLE = "YOLOV5_SHARDS_GB"
_LIMIT_GB = 32.0  # of copies, by default
_ROOM_GB = 1.0  # to be left free on the disk
_TRIES, _PAUSE = 3, 1.0  # of a download, and seconds before the second one
_CHUNK = 2**22
_STAMPS = (
    *("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "checksum"),
    *("mtime", "LastModified", "Last-Modified", "last_modified", "updated"),
)
_STALE = 86400.0  # seconds after which half a file is nobody's


class DownloadError(DataError):
    """A shard that cannot be had now: the others are of no help."""


@dataclass(frozen=True)
class ShardInfo:
    """What tells whether a shard is still the same."""

    url: str
    size: int
    stamp: str  # its time, or whatever its server tells versions apart by


def shard_info(url: str) -> ShardInfo:
    """Ask for the size and time of a shard.

    Raises:
        ConfigError: the kind of address is not known, or needs a package that is not installed.
        DownloadError: it is not there.
    """
    if not is_address(url):
        try:
            stat = os.stat(url)  # noqa: PTH116 - thousands of them
        except OSError as error:
            raise DownloadError(f"{url}: {error.strerror or error}") from error
        return ShardInfo(url, stat.st_size, str(stat.st_mtime_ns))
    with _as_download_error(url):
        files, path = _file_system(url)
        found = files.info(path)
    size = found.get("size")
    if size is None:
        raise DownloadError(f"{url}: its server does not say how large it is")
    stamp = next((str(found[name]) for name in _STAMPS if found.get(name)), "")
    return ShardInfo(url, int(size), stamp)


def local_copy(info: ShardInfo, sha256: str | None = None) -> Path:
    """A file with the shard's content; downloaded, and checked, if there is none yet.

    Args:
        info: of the shard.
        sha256: what its index was made from.

    Raises:
        DownloadError: it cannot be downloaded, or is another one than the index describes.
    """
    if not is_address(info.url):
        return Path(info.url)
    place = _place(info, sha256)
    known = bool(sha256 or info.stamp)  # else nothing tells whether a copy is still that of the shard
    with lock_file(place.with_suffix(".lock")):
        if not (known and place.is_file() and place.stat().st_size == info.size):
            make_room(info.size, keep=place)
            _download(info, place, sha256)
        with suppress(OSError):
            os.utime(place)  # used now: others go first
    return place


def keep_as(info: ShardInfo, sha256: str, copy: Path) -> None:
    """Let a copy that was downloaded without its digest be found by it from now on."""
    if is_address(info.url):
        with suppress(OSError):  # it is downloaded once more, then
            os.replace(copy, _place(info, sha256))


def _place(info: ShardInfo, sha256: str | None) -> Path:
    # A signature behind the address is another one each time; size and digest tell shards apart.
    key = f"{without_query(info.url)}\0{info.size}\0{info.stamp}\0{sha256 or ''}"
    return shards_folder() / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"


def shards_folder() -> Path:
    """Where copies are kept."""
    return cache_folder() / "shards"


def read_small(url: str) -> bytes | None:
    """The content of a small file beside a shard; None if there is none."""
    try:
        files, path = _file_system(url)
        content: bytes = files.cat_file(path)
    except ConfigError:
        raise
    except Exception:  # each kind of store has its own errors for `not there`
        return None
    return content


def make_room(size: int, keep: Path) -> None:
    """Remove the copies that were used longest ago, until one more of `size` bytes is within the limit."""
    folder = shards_folder()
    folder.mkdir(parents=True, exist_ok=True)
    copies = []
    for path in folder.glob("*.tar"):
        with suppress(OSError):  # another process has just removed it
            stat = path.stat()
            copies.append((stat.st_mtime, stat.st_size, path))
    for half in folder.glob(".*.part"):  # of a process that was killed
        with suppress(OSError):
            if time.time() - half.stat().st_mtime > _STALE:
                half.unlink()
    used = sum(copy[1] for copy in copies)
    free = shutil.disk_usage(folder).free
    limit = min(_limit(), used + free - _ROOM_GB * 1e9)
    for _, held, path in sorted(copies):
        if used + size <= limit:
            break
        if path != keep:
            path.unlink(missing_ok=True)  # who reads it can go on: the file is gone when it is closed
            used -= held


def _limit() -> float:
    text = os.environ.get(LIMIT_VARIABLE, str(_LIMIT_GB))
    try:
        return float(text) * 1e9
    except ValueError as error:
        raise ConfigError(f"${LIMIT_VARIABLE}={text}: expected a number of gigabytes such as 100") from error


def _download(info: ShardInfo, place: Path, sha256: str | None) -> None:
    for attempt in range(_TRIES):
        try:
            digest = _copy(info, place)
            break
        except DownloadError as error:
            if attempt + 1 == _TRIES:
                raise
            LOG.warning(f"{error}; trying again")
            time.sleep(_PAUSE * 4**attempt)
    if sha256 and digest != sha256:
        place.unlink(missing_ok=True)
        raise DownloadError(
            f"{info.url}: is not the shard that its index describes; remove the index, or replace it"
        )


def _copy(info: ShardInfo, place: Path) -> str:
    digest = hashlib.sha256()
    with _as_download_error(info.url):
        files, path = _file_system(info.url)
        with files.open(path, "rb", block_size=_CHUNK) as source, atomic_write(place) as target:
            while chunk := source.read(_CHUNK):
                target.write(chunk)
                digest.update(chunk)
            if target.tell() != info.size:
                raise DownloadError(f"{info.url}: {target.tell()} bytes came, {info.size} were expected")
    return digest.hexdigest()


def _file_system(url: str) -> tuple[Any, str]:
    """Who reads this kind of address, made again: connections do not survive a fork."""
    import fsspec

    check_address(url)
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
        text = one_line(error)
        reason = "not found" if isinstance(error, FileNotFoundError) else text
        raise DownloadError(f"{url}: cannot be read ({reason})") from error
