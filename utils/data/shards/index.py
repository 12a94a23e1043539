"""What is in a shard: its images and their places, sizes and labels; found once and kept beside it."""

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
from utils.base.log import LOG
from utils.base.paths import cache_folder, file_sha256
from utils.base.progress import Bar
from utils.data.image_lists import label_name
from utils.data.images import IMAGE_SUFFIXES, check_image
from utils.data.label_cache import UNREADABLE, VERSION, Scan, read_arrays, save_somewhere, stand_in
from utils.data.labels import SampleCheck, check_sample, pack
from utils.data.packed import PackedPaths
from utils.data.shards.store import ShardInfo, keep_as, local_copy, read_small, shard_info
from utils.data.shards.table import Shard, ShardTable
from utils.data.shards.urls import is_address, without_query

SUFFIX = ".index.npz"
_ASKED_AT_ONCE = 16  # shards; most of the time is waiting for an answer


@dataclass
class ShardIndex:
    """The images of one shard, N of them."""

    names: np.ndarray  # (bytes,) uint8: one after another, each with a line break behind it
    offset: np.ndarray  # (N,) int64
    length: np.ndarray  # (N,) int64
    scan: Scan
    sha256: str | None = None  # of the whole shard, where that is known

    def arrays(self, info: ShardInfo) -> dict[str, np.ndarray]:
        """All of it as arrays, for a file."""
        about = "\n".join((f"shard {VERSION}", str(info.size), info.stamp, self.sha256 or ""))
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
    if any(map(is_address, urls)):
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            info = list(pool.map(shard_info, urls))
            known = list(pool.map(load_index, info))
    else:  # there is nothing to wait for: threads would only take turns, and be three times slower
        info = [shard_info(url) for url in urls]
        known = [load_index(one) for one in info]
    missing = [number for number, index in enumerate(known) if index is None]
    if missing:
        for number in Bar(missing, f"{prefix}Indexing {len(missing)} of {len(urls)} shards {place}"):
            known[number] = make_index(info[number])
    indices = [index for index in known if index is not None]
    shards = [Shard(one, index.sha256) for one, index in zip(info, indices, strict=True)]
    images = [len(index.offset) for index in indices]
    table = ShardTable(
        shards,
        _names(indices),
        np.repeat(np.arange(len(shards)), images),
        np.concatenate([index.offset for index in indices]),
        np.concatenate([index.length for index in indices]),
    )
    return table, Scan.joined([index.scan for index in indices])


def load_index(info: ShardInfo) -> ShardIndex | None:
    """The index of a shard as it was found before, or came with it; None if there is none that fits."""
    for place, came_along in ((index_place(info.url), is_address(info.url)), (_stand_in(info), False)):
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
        # At its address a shard has another time than where it was made: its digest decides, once downloaded.
        same = bool(sha256) if came_along else bool(stamp) and stamp == info.stamp
        known = (version, size) == (f"shard {VERSION}", str(info.size))
        if known and same and _fits(index, info.size):
            return index
    return None


def make_index(info: ShardInfo) -> ShardIndex:
    """Look at all images of a shard, and keep what was found.

    Raises:
        DataError: it is no tar file, or cannot be had.
    """
    path = local_copy(info)
    found = _samples(path, info.url)
    if not found:
        LOG.warning(f"{info.url}: there are no images in it")
    names = "".join(f"{image.name}\n" for image, _ in found)
    digest = file_sha256(path)
    index = ShardIndex(
        names=np.frombuffer(names.encode("utf-8", "surrogateescape"), np.uint8),
        offset=np.array([image.offset for image, _ in found], np.int64),
        length=np.array([image.length for image, _ in found], np.int64),
        scan=_look(path, info.url, found),
        sha256=digest,
    )
    keep_as(info, digest, path)
    place = index_place(info.url)
    save_somewhere(_stand_in(info) if is_address(place) else Path(place), index.arrays(info))
    return index


def index_place(url: str) -> str:
    """Where the index of a shard belongs; behind an address with a query, the query stays."""
    place = without_query(url)
    return f"{place[: -len('.tar')]}{SUFFIX}{url[len(place) :]}"


def _stand_in(info: ShardInfo) -> Path:
    if not is_address(info.url):
        return stand_in(Path(index_place(info.url)))
    digest = hashlib.sha256(without_query(info.url).encode()).hexdigest()
    return cache_folder() / "shards" / f"{digest[:32]}{SUFFIX}"


@dataclass(frozen=True)
class _Member:
    """A file in a shard."""

    name: str
    offset: int
    length: int


def _samples(path: Path, url: str) -> list[tuple[_Member, _Member | None]]:
    """The images of a shard in their order, each with its labels, if any."""
    members = {member.name: member for member in _members(path, url)}  # of equal names the last one counts
    labels = {name[: -len(".txt")]: member for name, member in members.items() if name.endswith(".txt")}
    stems = {_stem(name) for name in members if _is_image(name)}
    found = []
    for name, member in members.items():
        if not _is_image(name):
            continue
        stem = _stem(name)
        own = labels.get(stem) or labels.get(label_name(f"/{name}")[1 : -len(".txt")])
        if own is None and _key(stem) != stem and (_key(stem) in stems or _key(stem) in labels):
            continue  # it belongs to another image, as a mask does: `7.mask.png` beside `7.jpg`
        found.append((member, own))
    return found


def _members(path: Path, url: str) -> Iterator[_Member]:
    """The files of a shard.

    Raises:
        DataError: it is no tar file, or damaged: reading ends before its end.
    """
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for member in file:
                if "\n" in member.name:
                    LOG.warning(f"{url}: {member.name!r} is skipped: a name with a line break")
                elif member.isreg():
                    yield _Member(member.name, member.offset_data, member.size)
            raw.seek(file.offset)
            rest = raw.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{url}: not a tar file that can be read ({error})") from error
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        what = "damaged, or several in one" if rest.strip(b"\0") else "cut off"
        raise DataError(f"{url}: the tar file is {what}: it cannot be read from byte {file.offset} on")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _key(stem: str) -> str:
    """What the files of a sample share by WebDataset's rule: all before the first dot of the file's name."""
    path = PurePosixPath(stem)
    return str(path.parent / path.name.partition(".")[0])


def _look(path: Path, url: str, found: Sequence[tuple[_Member, _Member | None]]) -> Scan:
    with path.open("rb") as file:

        def content(member: _Member) -> bytes:
            file.seek(member.offset)
            return file.read(member.length)

        def check(image: _Member, labels: _Member | None) -> SampleCheck:
            name = f"{url}/{image.name}"
            text = content(labels).decode("utf-8-sig", "replace") if labels else None
            return check_sample(name, lambda: check_image(name, content(image)), lambda: text)

        return pack([check(*sample) for sample in found])


def _fits(index: ShardIndex, size: int) -> bool:
    """Whether the arrays belong together and lie within the shard."""
    offset, length, names = index.offset, index.length, index.names
    one = (len(offset),) if offset.ndim == 1 else None
    if offset.shape != one or length.shape != one or names.ndim != 1:
        return False
    if (offset.dtype, length.dtype, names.dtype) != (np.int64, np.int64, np.uint8):
        return False
    within = (offset >= 0) & (offset <= size) & (length >= 0)
    return bool(
        index.scan.is_consistent(len(offset))
        and (names == ord("\n")).sum() == len(offset)
        and within.all()
        and (length <= size - offset).all()
    )


def _names(indices: Sequence[ShardIndex]) -> PackedPaths:
    text = np.concatenate([index.names for index in indices])
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))[: len(ends)]
    return PackedPaths("", text, starts, ends)
