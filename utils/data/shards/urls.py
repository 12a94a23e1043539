"""Shards as a data yaml names them: `shards/train-{0000..0099}.tar`, on a disk or at a URL."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.base.errors import ConfigError
from utils.base.inputs import expand_user
from utils.data.coco_source import CocoImages

MAX_SHARDS = 100_000  # more is most likely a typing error
# Schemes that only read bytes. fsspec has more: some create files from templates or chain others (`a::b`),
# which a data yaml must not be able to do.
SCHEMES = (
    *("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf"),
    *("hdfs", "webhdfs", "ftp", "sftp", "ssh", "smb"),
)
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)")


@dataclass(frozen=True)
class ShardList:
    """The shards that one entry of a data yaml stands for, in their order."""

    pattern: str  # the entry, for messages
    urls: tuple[str, ...]  # absolute paths, or URLs that fsspec opens

    def exists(self) -> bool:
        """Return whether the first shard is a file; URLs are checked when they are opened."""
        return is_url(self.urls[0]) or Path(self.urls[0]).is_file()

    def __str__(self) -> str:
        return self.pattern


ImageSource = Path | ShardList | CocoImages  # of images: a folder, a list of images, shards, or COCO's JSON


def is_shards(entry: str) -> bool:
    """Return whether an entry of a data yaml names shards.

    Raises:
        ConfigError: it names compressed shards.
    """
    lower = without_query(entry).lower()
    if lower.endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
        raise ConfigError(
            f"{entry}: single images cannot be read from compressed shards; use .tar (JPEGs hardly shrink)"
        )
    return lower.endswith(".tar")


def is_url(text: str) -> bool:
    """Return whether a text is a URL such as s3://bucket/train-0.tar, not a path."""
    return _URL.match(text) is not None


def check_url(url: str) -> None:
    """Reject URLs whose scheme is not known to be harmless.

    Raises:
        ConfigError: another scheme, or a chain of several.
    """
    scheme = _URL.match(url)
    if scheme is None or scheme[1].lower() not in SCHEMES or "::" in url:
        raise ConfigError(f"{url}: expected a URL that starts with {', '.join(SCHEMES)} and ://")


def without_query(url: str) -> str:
    """Return a URL without its query (`?...`, such as a signature); a path is returned as it is."""
    return url.partition("?")[0] if is_url(url) else url


def list_shards(entry: str, root: Path) -> ShardList:
    """List the shards of an entry; a path is relative to `root` and may contain `*`.

    Raises:
        ConfigError: too many shards, or an invalid range.
    """
    if entry.startswith("pipe:"):
        raise ConfigError(f"{entry}: commands in a data yaml are not run; give a path or a URL")
    if is_url(entry):
        check_url(entry)
        if "*" in entry:
            raise ConfigError(f"{entry}: a URL cannot contain *; name its shards as {{0000..0099}}")
        return ShardList(entry, _limited(entry, expand_braces(entry)))
    pattern = os.path.normpath(root / expand_user(entry))
    # Only the entry is expanded: the names of folders above it may contain braces or asterisks.
    names = _limited(entry, expand_braces(str(expand_user(entry))))
    if "*" in entry:
        names = tuple(found for name in names for found in sorted(glob.glob(name, root_dir=root)))  # noqa: PTH207
    urls = tuple(os.path.normpath(root / name) for name in names)
    return ShardList(pattern, urls or (pattern,))


def expand_braces(text: str) -> Iterator[str]:
    """Expand `a-{0..2}-{x,y}` as a shell does: the last braces vary fastest, leading zeros are kept.

    Raises:
        ConfigError: a range whose end is below its start.
    """
    parts = _BRACES.split(text)  # text and the content of braces, alternating
    choices = [[part] if number % 2 == 0 else _choices(part, text) for number, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


def _choices(inside: str, text: str) -> list[str]:
    if not (found := _RANGE.fullmatch(inside)):
        return inside.split(",")
    first, last = found.groups()
    if int(last) < int(first) or int(last) - int(first) >= MAX_SHARDS:
        raise ConfigError(
            f"{text}: {{{inside}}}: expected a range such as {{0000..0099}} of at most {MAX_SHARDS} shards"
        )
    width = len(first) if first.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def _limited(entry: str, urls: Iterator[str]) -> tuple[str, ...]:
    found = tuple(itertools.islice(urls, MAX_SHARDS + 1))
    if len(found) > MAX_SHARDS:
        raise ConfigError(f"{entry}: names more than {MAX_SHARDS} shards")
    return found
