"""Files and URLs that a user or a file names, checked before they are opened."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO
from urllib.parse import SplitResult, urlsplit

from utils.base.errors import ConfigError
from utils.base.limits import Limit

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def expand_user(path: str | Path) -> Path:
    """Return a path with `~` replaced by the home folder; as it is where the user or the home is unknown."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def file_size(path: str | Path) -> int:
    """Return the number of bytes of a file.

    Raises:
        OSError: there is no such file, or it is a pipe, device or socket, of which reading may never end.
    """
    info = os.stat(path)  # noqa: PTH116 - text and Path
    kind = stat.S_IFMT(info.st_mode)
    if kind in _KINDS:
        raise OSError(errno.EINVAL, f"{_KINDS[kind]}, where a file is needed", str(path))
    return info.st_size


def open_file(path: str | Path) -> BinaryIO:
    """Open a file to read bytes.

    Raises:
        OSError: it cannot be opened, or is no regular file, see `file_size`.
    """
    file_size(path)
    return Path(path).open("rb")


def read_file(path: str | Path, limit: Limit) -> bytes:
    """Return the content of a file.

    Raises:
        OSError: it cannot be read, or is no regular file, see `file_size`.
        DataError: it has more bytes than the limit.
    """
    limit.check(file_size(path), str(path))
    return Path(path).read_bytes()


def split_url(url: str) -> SplitResult:
    """Return the parts of a URL.

    Raises:
        ConfigError: it is malformed.
    """
    try:
        parts = urlsplit(url)
        _ = parts.hostname, parts.port  # are parsed on access
    except ValueError as error:
        raise ConfigError(f"{url}: not a valid URL ({error})") from error
    return parts
