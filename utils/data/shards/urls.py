"""What a data yaml calls its shards: `shards/train-{0000..0099}.tar`, on a disk or at an address."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from utils.base.errors import ConfigError

MOST = 100_000  # shards; more is a slip of the pen
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_ADDRESS = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+)(://|::)")
# Kinds of addresses that give bytes and do nothing else. fsspec knows more: some make files from templates,
# or chain others (`a::b`), and a data yaml must not be able to set such things going.
KINDS = (
    *("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "hf"),
    *("hdfs", "webhdfs", "ftp", "sftp", "ssh", "smb"),
)


@dataclass(frozen=True)
class ShardList:
    """The shards that one entry of a data yaml stands for, in their order."""

    pattern: str  # as it is shown
    urls: tuple[str, ...]  # absolute paths, or addresses that fsspec knows

    def exists(self) -> bool:
        """Whether they seem to be there; of addresses that is seen when they are opened."""
        return is_address(self.urls[0]) or Path(self.urls[0]).is_file()

    def __str__(self) -> str:
        return self.pattern


Source = Path | ShardList  # of images: a folder, a list, or shards


def is_shards(entry: str) -> bool:
    """Whether an entry of a data yaml means shards.

    Raises:
        ConfigError: it means compressed ones.
    """
    lower = without_query(entry).lower()
    if lower.endswith((".tar.gz", ".tgz", ".tar.zst", ".tar.bz2", ".tar.xz")):
        raise ConfigError(
            f"{entry}: compressed shards cannot be read in parts; JPEGs gain nothing by it: use .tar"
        )
    return lower.endswith(".tar")


def is_address(url: str) -> bool:
    """Whether this is an address such as s3://bucket/train-0.tar, not a path."""
    return _ADDRESS.match(url) is not None


def check_address(url: str) -> None:
    """Refuse kinds of addresses that are not known to be harmless.

    Raises:
        ConfigError: it is of another kind, or a chain.
    """
    kind = _ADDRESS.match(url)
    if kind is None or kind[1].lower() not in KINDS or "::" in url:
        raise ConfigError(f"{url}: expected an address that begins with {', '.join(KINDS)} and ://")


def without_query(url: str) -> str:
    """An address without what follows its `?`, such as a signature; a path as it is."""
    return url.partition("?")[0] if is_address(url) else url


def list_shards(entry: str, root: Path) -> ShardList:
    """The shards of an entry; a path is relative to `root`, and may have `*` in it.

    Raises:
        ConfigError: too many, or a range that makes no sense.
    """
    if entry.startswith("pipe:"):
        raise ConfigError(f"{entry}: nothing in a data yaml is run; give a path or an address")
    if is_address(entry):
        check_address(entry)
        if "*" in entry:
            raise ConfigError(f"{entry}: an address is not searched; name its shards as {{0000..0099}}")
        return ShardList(entry, _limited(entry, expand_braces(entry)))
    pattern = os.path.normpath(root / Path(entry).expanduser())
    # Of the entry alone: folders above it may have such signs in their names.
    names = _limited(entry, expand_braces(str(Path(entry).expanduser())))
    if "*" in entry:
        names = tuple(found for name in names for found in sorted(glob.glob(name, root_dir=root)))  # noqa: PTH207
    urls = tuple(os.path.normpath(root / name) for name in names)
    return ShardList(pattern, urls or (pattern,))


def expand_braces(text: str) -> Iterator[str]:
    """All that `a-{0..2}-{x,y}` stands for, the last braces counting fastest; zeros in front are kept.

    Raises:
        ConfigError: a range that ends before it begins.
    """
    parts = _BRACES.split(text)
    choices = [[part] if place % 2 == 0 else _choices(part, text) for place, part in enumerate(parts)]
    return map("".join, itertools.product(*choices))


def _choices(inside: str, text: str) -> list[str]:
    if not (found := _RANGE.fullmatch(inside)):
        return inside.split(",")
    first, last = found.groups()
    if int(last) < int(first) or int(last) - int(first) >= MOST:
        raise ConfigError(
            f"{text}: {{{inside}}}: expected a range such as {{0000..0099}}, {MOST} shards at most"
        )
    width = len(first) if first.startswith("0") else 0
    return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]


def _limited(entry: str, urls: Iterator[str]) -> tuple[str, ...]:
    found = tuple(itertools.islice(urls, MOST + 1))
    if len(found) > MOST:
        raise ConfigError(f"{entry}: stands for more than {MOST} shards")
    return found
