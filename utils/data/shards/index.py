"""What is in a shard: its pictures and their places, sizes and labels; found once and kept beside it."""

from __future__ import annotations

import hashlib
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

import numpy as np

from utils.base.errors import DataError
from utils.base.paths import cache_folder
from utils.base.progress import Bar
from utils.data.array_file import UNREADABLE, read_arrays
from utils.data.images import IMAGE_SUFFIXES, check_image
from utils.data.label_cache import VERSION, Scan, save_somewhere, stand_in
from utils.data.shards.names import is_address, without_query
from utils.data.shards.store import ShardFacts, local_copy, read_small, shard_facts
from utils.data.shards.table import Shard, ShardTable
from utils.data.tables import PathTable
from utils.data.verdict import judge, pack

SUFFIX = ".index.npz"
_ASKED_AT_ONCE = 16  # shards; most of the time is waiting for an answer


@dataclass
class ShardIndex:
    """The pictures of one shard, N of them."""

    names: np.ndarray  # (bytes,) uint8: one after another, each with a line break behind it
    offset: np.ndarray  # (N,) int64
    length: np.ndarray  # (N,) int64
    scan: Scan
    sha256: str | None = None  # of the whole shard, where that is known

    def arrays(self, facts: ShardFacts) -> dict[str, np.ndarray]:
        """All of it as arrays, for a file."""
        about = "\n".join((f"shard {VERSION}", str(facts.size), facts.stamp, self.sha256 or ""))
        own = {"names": self.names, "offset": self.offset, "length": self.length}
        return own | self.scan.plain_arrays() | {"about": np.frombuffer(about.encode(), np.uint8)}


def open_shards(urls: Sequence[str], place: str, prefix: str = "") -> tuple[ShardTable, Scan]:
    """Find out what is in shards, from their indices where these are there and fit.

    Args:
        urls: paths and addresses.
        place: what to call them all.
        prefix: put before messages.

    Raises:
        ConfigError, DataError: shards that are not there, or cannot be read.
    """
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        facts = list(pool.map(shard_facts, urls))
        known = list(pool.map(load_index, facts))
    missing = [number for number, index in enumerate(known) if index is None]
    if missing:
        for number in Bar(missing, f"{prefix}Indexing {len(missing)} of {len(urls)} shards {place}"):
            known[number] = make_index(facts[number])
    indices = [index for index in known if index is not None]
    shards = [Shard(fact, index.sha256) for fact, index in zip(facts, indices, strict=True)]
    pictures = [len(index.offset) for index in indices]
    table = ShardTable(
        shards,
        _names(indices),
        np.repeat(np.arange(len(shards)), pictures),
        np.concatenate([index.offset for index in indices]),
        np.concatenate([index.length for index in indices]),
    )
    return table, Scan.joined([index.scan for index in indices])


def load_index(facts: ShardFacts) -> ShardIndex | None:
    """The index of a shard as it was found before, or came with it; None if there is none that fits."""
    for place, came_along in ((index_place(facts.url), is_address(facts.url)), (_stand_in(facts), False)):
        try:
            if is_address(str(place)):
                content = read_small(str(place))
                arrays = read_arrays(BytesIO(content)) if content else {}
            else:
                arrays = read_arrays(Path(place))
            version, size, stamp, sha256 = arrays["about"].tobytes().decode().split("\n")
            parts = (arrays["names"], arrays["offset"], arrays["length"], Scan.from_arrays(arrays))
        except UNREADABLE:
            continue
        index = ShardIndex(*parts, sha256 or None)
        # At its address a shard has another time than where it was made: its digest decides, once fetched.
        same = bool(sha256) if came_along else stamp == facts.stamp
        if version == f"shard {VERSION}" and int(size) == facts.size and same and _fits(index, facts.size):
            return index
    return None


def make_index(facts: ShardFacts) -> ShardIndex:
    """Look at all pictures of a shard, and keep what was found.

    Raises:
        DataError: it is no tar file, or cannot be had.
    """
    path = local_copy(facts)
    found = list(_members(path, facts.url))
    names = [name for name, _, _, _ in found]
    index = ShardIndex(
        names=np.frombuffer(
            "".join(f"{name}\n" for name in names).encode("utf-8", "surrogateescape"), np.uint8
        ),
        offset=np.array([offset for _, offset, _, _ in found], np.int64),
        length=np.array([length for _, _, length, _ in found], np.int64),
        scan=_look(path, facts.url, found),
        sha256=file_sha256(path),
    )
    place = index_place(facts.url)
    save_somewhere(_stand_in(facts) if is_address(place) else Path(place), index.arrays(facts))
    return index


def index_place(url: str) -> str:
    """Where the index of a shard belongs; behind an address with a query, the query stays."""
    place = without_query(url)
    return f"{place[: -len('.tar')]}{SUFFIX}{url[len(place) :]}"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(2**22):
            digest.update(chunk)
    return digest.hexdigest()


def _stand_in(facts: ShardFacts) -> Path:
    if not is_address(facts.url):
        return stand_in(Path(index_place(facts.url)))
    digest = hashlib.sha256(facts.url.encode()).hexdigest()
    return cache_folder() / "shards" / f"{digest[:32]}{SUFFIX}"


def _members(path: Path, url: str) -> Iterator[tuple[str, int, int, tuple[int, int] | None]]:
    """Pictures of a shard: name, first byte, bytes; and first byte and bytes of their labels, if any."""
    pictures: dict[str, tuple[str, int, int]] = {}
    labels: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                if not member.isreg() or "\n" in member.name:
                    continue
                key, suffix = _key(member.name)
                if suffix == ".txt":
                    labels[key] = member.offset_data, member.size
                elif suffix in IMAGE_SUFFIXES:
                    pictures[key] = member.name, member.offset_data, member.size
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{url}: not a tar file that can be read ({error})") from error
    for key, picture in pictures.items():
        yield *picture, labels.get(key)


def _key(name: str) -> tuple[str, str]:
    """What the files of a sample share, and the rest of the name, from its first dot on, as in WebDataset."""
    path = PurePosixPath(name)
    stem, _, suffix = path.name.partition(".")
    return str(path.parent / stem), f".{suffix.lower()}"


def _look(path: Path, url: str, found: Sequence[tuple[str, int, int, tuple[int, int] | None]]) -> Scan:
    with path.open("rb") as file:

        def content(place: tuple[int, int]) -> bytes:
            file.seek(place[0])
            return file.read(place[1])

        verdicts = []
        for name, offset, length, labels in found:
            shown, picture = f"{url}/{name}", content((offset, length))
            text = content(labels).decode("utf-8-sig", "replace") if labels else None
            verdicts.append(judge(shown, lambda s=shown, p=picture: check_image(s, p), lambda t=text: t))  # type: ignore[misc]
    return pack(verdicts)


def _fits(index: ShardIndex, size: int) -> bool:
    """Whether the arrays belong together and lie within the shard."""
    count = len(index.offset)
    ends = index.offset + index.length
    return bool(
        index.scan.is_consistent(count)
        and len(index.length) == count
        and (index.names == ord("\n")).sum() == count
        and (index.offset >= 0).all()
        and (index.length >= 0).all()
        and (ends <= size).all()
    )


def _names(indices: Sequence[ShardIndex]) -> PathTable:
    text = np.concatenate([index.names for index in indices])
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))[: len(ends)]
    return PathTable("", text, starts, ends)
