"""The index of a shard: position, size and labels of its images, computed once and kept beside the shard."""

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
from utils.base.log import LOG, Bar
from utils.base.paths import cache_folder, decode_text, file_sha256
from utils.data.image_lists import label_name
from utils.data.images import IMAGE_SUFFIXES, check_image
from utils.data.label_cache import (
    UNREADABLE,
    VERSION,
    Scan,
    fallback_path,
    read_arrays,
    save_with_fallback,
)
from utils.data.labels import SampleCheck, build_scan, check_sample
from utils.data.packed import PackedPaths
from utils.data.shards.store import ShardInfo, keep_as, local_copy, read_small, shard_info
from utils.data.shards.table import Shard, ShardTable
from utils.data.shards.urls import is_url, without_query

SUFFIX = ".index.npz"
_REQUESTS = 16  # shards to ask for at the same time; most of it is waiting for the server


@dataclass
class ShardIndex:
    """The N images of one shard."""

    names: np.ndarray  # (bytes,) uint8: one after another, each followed by a line break
    offset: np.ndarray  # (N,) int64
    length: np.ndarray  # (N,) int64
    scan: Scan
    sha256: str | None = None  # of the whole shard, if known

    def arrays(self, info: ShardInfo) -> dict[str, np.ndarray]:
        """Return the index of the shard `info` as arrays, to be saved."""
        about = "\n".join((f"shard {VERSION}", str(info.size), info.stamp, self.sha256 or ""))
        own = {"names": self.names, "offset": self.offset, "length": self.length}
        return own | self.scan.to_arrays() | {"about": np.frombuffer(about.encode(), np.uint8)}


def open_shards(urls: Sequence[str], name: str, prefix: str = "") -> tuple[ShardTable, Scan]:
    """Read the indices of shards; make those that are missing or outdated.

    Args:
        urls: paths and URLs.
        name: name of all of them in messages.
        prefix: text before messages.

    Raises:
        ConfigError, DataError: a shard does not exist or cannot be read.
    """
    if any(map(is_url, urls)):
        with ThreadPoolExecutor(_REQUESTS) as pool:
            info = list(pool.map(shard_info, urls))
            known = list(pool.map(load_index, info))
    else:  # nothing to wait for: threads would only compete for the GIL, and take three times as long
        info = [shard_info(url) for url in urls]
        known = [load_index(one) for one in info]
    missing = [number for number, index in enumerate(known) if index is None]
    if missing:
        for number in Bar(missing, f"{prefix}Indexing {len(missing)} of {len(urls)} shards {name}"):
            known[number] = make_index(info[number])
    indices = [index for index in known if index is not None]
    shards = [Shard(one, index.sha256) for one, index in zip(info, indices, strict=True)]
    images = [len(index.offset) for index in indices]
    table = ShardTable(
        shards,
        _join_names(indices),
        np.repeat(np.arange(len(shards)), images),
        np.concatenate([index.offset for index in indices]),
        np.concatenate([index.length for index in indices]),
    )
    return table, Scan.concatenate([index.scan for index in indices])


def _join_names(indices: Sequence[ShardIndex]) -> PackedPaths:
    text = np.concatenate([index.names for index in indices])
    ends = np.flatnonzero(text == ord("\n"))
    starts = np.concatenate((np.zeros(1, np.int64), ends[:-1] + 1))[: len(ends)]
    return PackedPaths("", text, starts, ends)


def load_index(info: ShardInfo) -> ShardIndex | None:
    """Load the index of a shard, from beside it or from the cache folder; None if none is valid."""
    for path, published in ((index_path(info.url), is_url(info.url)), (str(_fallback(info)), False)):
        try:
            if is_url(path):
                content = read_small(path)
                arrays = read_arrays(BytesIO(content)) if content else {}
            else:
                arrays = read_arrays(Path(path))
            version, size, stamp, sha256 = arrays["about"].tobytes().decode().split("\n")
            fields = (arrays["names"], arrays["offset"], arrays["length"], Scan.from_arrays(arrays))
        except UNREADABLE:
            continue
        index = ShardIndex(*fields, sha256 or None)
        # An uploaded shard has another time than the original: the digest is checked after the download.
        same = bool(sha256) if published else bool(stamp) and stamp == info.stamp
        known = (version, size) == (f"shard {VERSION}", str(info.size))
        if known and same and _is_consistent(index, info.size):
            return index
    return None


def _is_consistent(index: ShardIndex, size: int) -> bool:
    """Return whether the arrays fit together and lie within a shard of `size` bytes."""
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


def make_index(info: ShardInfo) -> ShardIndex:
    """Check all images of a shard and save the index.

    Raises:
        DataError: the shard is not a tar file, or cannot be downloaded.
    """
    path = local_copy(info)
    samples = _list_samples(path, info.url)
    if not samples:
        LOG.warning(f"{info.url}: contains no images")
    names = "".join(f"{image.name}\n" for image, _ in samples)
    digest = file_sha256(path)
    index = ShardIndex(
        names=np.frombuffer(names.encode("utf-8", "surrogateescape"), np.uint8),
        offset=np.array([image.offset for image, _ in samples], np.int64),
        length=np.array([image.length for image, _ in samples], np.int64),
        scan=_scan_samples(path, info.url, samples),
        sha256=digest,
    )
    keep_as(info, digest, path)
    beside = index_path(info.url)
    save_with_fallback(_fallback(info) if is_url(beside) else Path(beside), index.arrays(info))
    return index


def index_path(url: str) -> str:
    """Return the path or URL of a shard's index, beside the shard; the query of a URL is kept."""
    shard = without_query(url)
    return f"{shard[: -len('.tar')]}{SUFFIX}{url[len(shard) :]}"


def _fallback(info: ShardInfo) -> Path:
    if not is_url(info.url):
        return fallback_path(Path(index_path(info.url)))
    digest = hashlib.sha256(without_query(info.url).encode()).hexdigest()
    return cache_folder() / "shards" / f"{digest[:32]}{SUFFIX}"


@dataclass(frozen=True)
class _Member:
    """A file in a shard."""

    name: str
    offset: int
    length: int


def _list_samples(path: Path, url: str) -> list[tuple[_Member, _Member | None]]:
    """List the images of a shard in their order, each with its label file, if any."""
    members = {member.name: member for member in _list_members(path, url)}  # the last of equal names counts
    labels = {name[: -len(".txt")]: member for name, member in members.items() if name.endswith(".txt")}
    stems = {_stem(name) for name in members if _is_image(name)}
    samples = []
    for name, member in members.items():
        if not _is_image(name):
            continue
        stem = _stem(name)
        own = labels.get(stem) or labels.get(label_name(f"/{name}")[1 : -len(".txt")])
        if own is None and _key(stem) != stem and (_key(stem) in stems or _key(stem) in labels):
            continue  # it belongs to another image, such as a mask: `7.mask.png` beside `7.jpg`
        samples.append((member, own))
    return samples


def _list_members(path: Path, url: str) -> Iterator[_Member]:
    """List the files of a shard.

    Raises:
        DataError: not a tar file, or damaged: tarfile stops before the end of it.
    """
    try:
        with path.open("rb") as raw, tarfile.open(fileobj=raw, mode="r:") as file:
            for member in file:
                if "\n" in member.name:
                    LOG.warning(f"{url}: {member.name!r} is skipped: its name contains a line break")
                elif member.isreg():
                    yield _Member(member.name, member.offset_data, member.size)
            raw.seek(file.offset)
            rest = raw.read()
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(f"{url}: not a readable tar file ({error})") from error
    if len(rest) < tarfile.BLOCKSIZE or rest.strip(b"\0"):
        what = "damaged, or several in one" if rest.strip(b"\0") else "cut off"
        raise DataError(f"{url}: the tar file is {what}: it cannot be read from byte {file.offset} on")


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES)


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def _key(stem: str) -> str:
    """Return the key that the files of a sample share in WebDataset: the file name up to its first dot."""
    path = PurePosixPath(stem)
    return str(path.parent / path.name.partition(".")[0])


def _scan_samples(path: Path, url: str, samples: Sequence[tuple[_Member, _Member | None]]) -> Scan:
    with path.open("rb") as file:

        def content(member: _Member) -> bytes:
            file.seek(member.offset)
            return file.read(member.length)

        def check(image: _Member, labels: _Member | None) -> SampleCheck:
            name = f"{url}/{image.name}"
            data = content(labels) if labels else None
            return check_sample(
                name,
                lambda: check_image(name, content(image)),
                lambda: None if data is None else decode_text(data),
            )

        return build_scan([check(*sample) for sample in samples])
