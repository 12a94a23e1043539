"""Download one file over http(s): checked, whole or not at all, and clear when there is no network."""

from __future__ import annotations

import hashlib
import ipaddress
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.base.errors import ConfigError, DataError
from utils.base.paths import atomic_write, file_sha256
from utils.base.progress import Bar

TIMEOUT = 15.0  # seconds of silence, to connect or between two chunks
LARGEST = 64 * 2**30  # bytes; no single archive of the public sets comes near
_CHUNK = 2**20


def download_file(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    limit: int = LARGEST,
    timeout: float = TIMEOUT,
) -> Path:
    """Download `url` to `destination` unless the file is there with this sha256 and size.

    Args:
        url: http or https.
        destination: file to write; it appears only when whole and checked.
        sha256: expected hash, 64 hexadecimal digits.
        size: expected number of bytes.
        limit: most bytes to accept where `size` is not known.
        timeout: longest silence, seconds.

    Raises:
        ConfigError: not an http(s) address.
        DataError: no network, an answer other than the file, or not the file that was expected.
    """
    _check_address(url)
    if destination.is_file() and matches(destination, sha256, size):
        return destination
    digest = hashlib.sha256()
    with _open(url, destination, timeout) as response:
        promised = _promised_size(response)
        _check_room(url, destination, promised, size, limit)
        bar = Bar(_chunks(response, url), destination.name, total=_count(promised))
        try:
            with atomic_write(destination) as file:
                for chunk in bar:
                    file.write(chunk)
                    digest.update(chunk)
                    bar.say(f"{destination.name} {file.tell() / 1e6:.1f} MB")
                    if file.tell() > min(size or limit, limit):
                        raise DataError(f"{url}: more than the expected {size or limit:,} bytes arrive")
                _check_whole(url, file.tell(), promised, size)
                if sha256 and digest.hexdigest() != sha256.lower():
                    raise DataError(f"{url}: sha256 is {digest.hexdigest()}, expected {sha256}; not kept")
        except OSError as error:
            raise DataError(f"{destination}: cannot be written ({error.strerror or error})") from error
    return destination


def download_bytes(url: str, *, limit: int, timeout: float = TIMEOUT, public: bool = False) -> bytes:
    """Download `url` into memory.

    Args:
        url: http or https.
        limit: most bytes to accept.
        timeout: longest silence, seconds.
        public: refuse addresses inside the machine or its network, where redirects lead, too. Where
            strangers name the address, they would else look through this machine's eyes.

    Raises:
        ConfigError: not an http(s) address, or one that `public` refuses.
        DataError: no network, an answer other than the file, or more than `limit` bytes.
    """
    _check_address(url)
    with _open(url, None, timeout, public) as response:
        promised = _promised_size(response)
        if promised is not None and promised > limit:
            raise DataError(f"{url}: has {promised:,} bytes, more than the {limit:,} allowed; not downloaded")
        content = bytearray()
        for chunk in _chunks(response, url):
            content += chunk
            if len(content) > limit:
                raise DataError(f"{url}: more than the {limit:,} bytes allowed arrive")
    _check_whole(url, len(content), promised, None)
    return bytes(content)


def matches(path: Path, sha256: str | None, size: int | None) -> bool:
    """Tell whether a file has this size and hash, as far as they are known."""
    if size is not None and path.stat().st_size != size:
        return False
    if sha256 is None:
        return True
    return file_sha256(path) == sha256.lower()


class _SameOrSafer(urllib.request.HTTPRedirectHandler):
    """Follow redirects to http(s) only, never from https down to http, and inside only if that is allowed."""

    def __init__(self, public: bool = False) -> None:
        self.public = public

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = ("https",) if req.type == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            raise urllib.error.URLError(f"redirected to {newurl}, which is not {' or '.join(allowed)}")
        if self.public:
            _check_public(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str) -> None:
    if urlsplit(url).scheme.lower() not in ("http", "https") or not urlsplit(url).hostname:
        raise ConfigError(f"{url}: not an address to download from; http:// or https:// is needed")


def _check_public(url: str) -> None:
    """Refuse hosts that are this machine or near it; one that nobody knows is left to who opens it."""
    host = urlsplit(url).hostname or ""
    try:
        found = {str(place[4][0]).partition("%")[0] for place in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return
    if not all(ipaddress.ip_address(address).is_global for address in found):
        raise ConfigError(f"{url}: {host} is not a public address; download it yourself, and give the file")


def _open(url: str, destination: Path | None, timeout: float, public: bool = False) -> Any:
    if public:
        _check_public(url)
    opener = urllib.request.build_opener(_SameOrSafer(public))
    request = urllib.request.Request(url, headers={"User-Agent": "yolov5-lska"})
    try:
        return opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        with error:
            raise DataError(f"{url}: the server answers {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        place = f" and put it at {destination}" if destination else ""
        raise DataError(
            f"{url}: cannot be reached ({_reason(error)}); without a network, download it elsewhere{place}"
        ) from error


def _chunks(response: Any, url: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise DataError(f"{url}: the connection broke ({_reason(error)}); run it again") from error
        if not chunk:
            return
        yield chunk


def _reason(error: Exception) -> str:
    cause = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
    return str(getattr(cause, "strerror", None) or cause) or type(error).__name__


def _promised_size(response: Any) -> int | None:
    text = response.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None


def _count(size: int | None) -> int | None:
    return None if size is None else -(-size // _CHUNK)


def _check_room(url: str, destination: Path, promised: int | None, size: int | None, limit: int) -> None:
    if promised is None:
        return
    if size is not None and promised != size:
        raise DataError(f"{url}: has {promised:,} bytes, expected {size:,}; not downloaded")
    if promised > limit:
        raise DataError(f"{url}: has {promised:,} bytes, more than the {limit:,} allowed; not downloaded")
    folder = next(parent for parent in destination.absolute().parents if parent.exists())
    free = shutil.disk_usage(folder).free
    if promised > free:
        raise DataError(f"{url}: has {promised:,} bytes, but {folder} has only {free:,} free")


def _check_whole(url: str, got: int, promised: int | None, size: int | None) -> None:
    expected = size if size is not None else promised
    if expected is not None and got != expected:
        raise DataError(f"{url}: broke off after {got:,} of {expected:,} bytes; run it again")
