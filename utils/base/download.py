"""Download a file over http(s), atomically, with checks of size and hash and one-line errors."""

from __future__ import annotations

import hashlib
import shutil
import urllib.error
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

from utils.base.errors import DataError
from utils.base.http_client import Deadline, check_url, open_url
from utils.base.limits import DOWNLOAD
from utils.base.log import Bar
from utils.base.paths import atomic_write, file_sha256

TIMEOUT = 15.0  # seconds without a response, on connecting or between two chunks
MAX_BYTES = 64 * 2**30  # far more than any archive of the public datasets
_CHUNK = 2**20


def download_file(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    limit: int = MAX_BYTES,
    timeout: float = TIMEOUT,
    always: bool = False,
) -> Path:
    """Download `url` to `destination`, unless that file exists with this sha256 and size.

    Args:
        url: http or https.
        destination: file to write, atomically and after all checks.
        sha256: expected hash, 64 hexadecimal digits.
        size: expected number of bytes.
        limit: maximum number of bytes to accept, if `size` is not known.
        timeout: maximum time without a response, seconds.
        always: download even where the file exists.

    Raises:
        ConfigError: not an http(s) URL.
        DataError: no network, an HTTP error, or another size or hash than expected.
    """
    check_url(url)
    if not always and destination.is_file() and matches(destination, sha256, size):
        return destination
    digest = hashlib.sha256()
    response, deadline = _open(url, destination, timeout)
    with response:
        length = _content_length(response)
        _check_size(url, destination, length, size, limit)
        bar = Bar(_chunks(response, deadline, url), destination.name, total=_count_chunks(length))
        try:
            with atomic_write(destination) as file:
                for chunk in bar:
                    file.write(chunk)
                    digest.update(chunk)
                    bar.set_text(f"{destination.name} {file.tell() / 1e6:.1f} MB")
                    if file.tell() > min(size or limit, limit):
                        raise DataError(f"{url}: received more than the expected {size or limit:,} bytes")
                _check_complete(url, file.tell(), length, size)
                if sha256 and digest.hexdigest() != sha256.lower():
                    raise DataError(f"{url}: sha256 is {digest.hexdigest()}, expected {sha256}; not kept")
        except OSError as error:
            raise DataError(f"{destination}: cannot be written ({error.strerror or error})") from error
    return destination


def download_bytes(url: str, *, limit: int, timeout: float = TIMEOUT, public: bool = False) -> bytes:
    """Download `url` into memory.

    Args:
        url: http or https.
        limit: maximum number of bytes to accept.
        timeout: maximum time without a response, seconds.
        public: refuse hosts and redirects inside the local network. Prevents server-side request forgery
            when the URL comes from an untrusted client.

    Raises:
        ConfigError: not an http(s) URL, or one that `public` refuses.
        DataError: no network, an HTTP error, or more than `limit` bytes.
    """
    check_url(url)
    response, deadline = _open(url, None, timeout, public)
    with response:
        length = _content_length(response)
        if length is not None and length > limit:
            raise DataError(f"{url}: has {length:,} bytes, more than the {limit:,} allowed; not downloaded")
        content = bytearray()
        for chunk in _chunks(response, deadline, url):
            content += chunk
            if len(content) > limit:
                raise DataError(f"{url}: received more than the {limit:,} bytes allowed")
    _check_complete(url, len(content), length, None)
    return bytes(content)


def matches(path: Path, sha256: str | None, size: int | None) -> bool:
    """Return whether a file has this size and hash; None is not checked."""
    if size is not None and path.stat().st_size != size:
        return False
    if sha256 is None:
        return True
    return file_sha256(path) == sha256.lower()


def _open(url: str, destination: Path | None, timeout: float, public: bool = False) -> tuple[Any, Deadline]:
    try:
        return open_url(url, timeout, public)
    except urllib.error.HTTPError as error:
        with error:
            raise DataError(f"{url}: HTTP status {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        where = f" and put it at {destination}" if destination else ""
        raise DataError(
            f"{url}: cannot be reached ({_reason(error)}); without a network, download it elsewhere{where}"
        ) from error


def _chunks(response: Any, deadline: Deadline, url: str) -> Iterator[bytes]:
    """Yield the body in parts of `_CHUNK` bytes, within the time that a download may take."""
    deadline.start(DOWNLOAD.value)
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        if not deadline.late:
            raise DataError(f"{url}: the connection broke ({_reason(error)}); try again") from error
    finally:
        deadline.stop()
    if deadline.late:
        raise DataError(
            f"{url}: not complete after {DOWNLOAD.value:,} {DOWNLOAD.what}; raise the limit with "
            f"{DOWNLOAD.variable}, or download the file yourself"
        )


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(cause, "strerror", None) or cause) or type(error).__name__


def _content_length(response: Any) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _count_chunks(size: int | None) -> int | None:
    return None if size is None else -(-size // _CHUNK)


def _check_size(url: str, destination: Path, length: int | None, size: int | None, limit: int) -> None:
    if length is None:
        return
    if size is not None and length != size:
        raise DataError(f"{url}: has {length:,} bytes, expected {size:,}; not downloaded")
    if length > limit:
        raise DataError(f"{url}: has {length:,} bytes, more than the {limit:,} allowed; not downloaded")
    folder = next(parent for parent in destination.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if length > free:
        raise DataError(f"{url}: has {length:,} bytes, but {folder} has only {free:,} free")


def _check_complete(url: str, got: int, length: int | None, size: int | None) -> None:
    expected = size if size is not None else length
    if expected is not None and got != expected:
        raise DataError(f"{url}: ended after {got:,} of {expected:,} bytes; try again")
