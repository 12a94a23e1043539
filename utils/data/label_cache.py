"""Named arrays in one file, an uncompressed .npz: plain data, which several processes can map into memory."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np

from utils.base.log import LOG
from utils.base.paths import atomic_write, cache_folder
from utils.data.image_lists import label_name, label_path
from utils.data.packed import PackedPaths

# What a file that is damaged, or something else, makes of an attempt to read it.
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_NAME_LENGTHS = slice(26, 30)  # in the header of a zip's member: two bytes each for name and extra field
_HEADER = 30


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays, whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Map the arrays of a file into memory: nothing is read before it is used, and processes share the pages.

    They may be written to; the file stays as it is.

    Raises:
        one of UNREADABLE: it is not a file of `save_arrays`.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError(f"{path}: compressed")
        return {member.filename.removesuffix(".npy"): _map(path, file, member) for member in members}


def read_arrays(file: Path | BinaryIO) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Raises:
        one of UNREADABLE: it is not a file of `save_arrays`.
    """
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def _map(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray:
    file.seek(member.header_offset)
    header = file.read(_HEADER)
    lengths = header[_NAME_LENGTHS]
    file.seek(int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little"), 1)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{path}: {member.filename} holds objects")
    if 0 in shape:
        return np.zeros(shape, dtype)
    mapped = np.memmap(path, dtype, "c", file.tell(), shape, "F" if fortran else "C")
    return mapped.view(np.ndarray)  # each slice of a memmap, and each sum with one, costs microseconds more


VERSION = 1  # raise it when the rules for images or labels change
USABLE, BACKGROUND, CORRUPT = 0, 1, 2


@dataclass
class Note:
    """Something to tell about an image or its label file."""

    index: int  # of the image
    about_labels: bool
    text: str


@dataclass
class Scan:
    """What a scan found about N images, the rows of all label files one after another."""

    status: np.ndarray  # (N,) uint8: USABLE, BACKGROUND or CORRUPT
    sizes: np.ndarray  # (N, 2) int32: width, height
    counts: np.ndarray  # (N,) int32: rows of each image
    rows: np.ndarray  # (R, 5) float32: class, xywhn
    lines: np.ndarray  # (R,) int32: line of each row in its file
    outlined: np.ndarray  # (R,) int32: points of each row's polygon, 0 where it is a box
    points: np.ndarray  # (P, 2) float32: of all polygons
    notes: list[Note] = field(default_factory=list)

    def is_consistent(self, images: int) -> bool:
        """Whether the arrays belong together and to so many images."""
        total, points = len(self.rows), len(self.points)
        expected = {
            "status": ((images,), np.uint8), "sizes": ((images, 2), np.int32),
            "counts": ((images,), np.int32), "rows": ((total, 5), np.float32),
            "lines": ((total,), np.int32), "outlined": ((total,), np.int32),
            "points": ((points, 2), np.float32),
        }  # fmt: skip
        found = {name: (array.shape, array.dtype) for name, array in self.arrays().items()}
        if found != expected:
            return False
        lengths = np.concatenate((self.counts, self.outlined))
        if (self.status > CORRUPT).any() or (self.sizes[self.status != CORRUPT] < 1).any():
            return False
        if any(not 0 <= note.index < images for note in self.notes):
            return False
        return self.counts.sum() == total and self.outlined.sum() == points and lengths.min(initial=0) >= 0

    def arrays(self) -> dict[str, np.ndarray]:
        """All but the notes, by name."""
        return {name: getattr(self, name) for name in _ARRAYS}

    @classmethod
    def joined(cls, scans: Sequence[Scan]) -> Scan:
        """Several scans as one, in their order; at least one."""
        before = np.cumsum([0, *(len(scan.status) for scan in scans)]).tolist()
        notes = [
            Note(note.index + first, note.about_labels, note.text)
            for first, scan in zip(before, scans, strict=False)
            for note in scan.notes
        ]
        return cls(
            **{name: np.concatenate([getattr(s, name) for s in scans]) for name in _ARRAYS}, notes=notes
        )

    def plain_arrays(self) -> dict[str, np.ndarray]:
        """All of it as arrays, from which `from_arrays` makes it again."""
        notes = json.dumps([astuple(note) for note in self.notes]).encode()
        return {**self.arrays(), "notes": np.frombuffer(notes, np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Scan:
        """Undo `plain_arrays`.

        Raises:
            KeyError, TypeError, ValueError: something is missing, or is not as it should be.
        """
        notes = [Note(*entry) for entry in json.loads(arrays["notes"].tobytes())]
        if not all(type(n.index) is int and isinstance(n.text, str) for n in notes):
            raise ValueError("notes of another kind")
        return cls(**{name: arrays[name] for name in _ARRAYS}, notes=notes)


_ARRAYS = ("status", "sizes", "counts", "rows", "lines", "outlined", "points")


def content_keys(images: PackedPaths) -> tuple[str, str]:
    """Digests of the images and label files: of places within the set, sizes and times; without times."""
    exact, lasting = hashlib.sha256(f"labels {VERSION}".encode()), hashlib.sha256()
    for index in range(len(images)):
        place = images.place(index)
        path = images.root + place
        image, labels = _size_and_time(path), _size_and_time(label_name(path))
        exact.update(f"{place}\0{image}\0{labels}\n".encode("utf-8", "surrogateescape"))
        sizes = f"{place}\0{image.partition(':')[0]}\0{labels.partition(':')[0]}\n"
        lasting.update(sizes.encode("utf-8", "surrogateescape"))
    return exact.hexdigest(), lasting.hexdigest()


def cache_path(sources: Sequence[Path], images: Sequence[Path]) -> Path:
    """Where the cache of a set belongs: beside its label folder, or beside its list of images."""
    last = sources[-1]
    if last.is_file():
        place = last.with_suffix(".cache.npz")
    else:
        folder = label_path(last / "x").parent
        folder = folder if folder.is_dir() else label_path(images[0]).parent
        place = folder.parent / f"{folder.name}.cache.npz"
    if len(sources) > 1:  # another split may end with the same source
        tag = hashlib.sha256("\n".join(map(str, sources)).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        place = place.with_name(place.name.replace(".cache.npz", f"-{tag}.cache.npz"))
    return place


def load_scan(place: Path, key: str, images: int) -> Scan | None:
    """Read the cache at `place`, or its stand-in; None if there is none for this key, or it is damaged."""
    for path in (place, stand_in(place)):
        try:
            arrays = map_arrays(path)
            if arrays["key"].tobytes().decode() != key:
                continue
            scan = Scan.from_arrays(arrays)
        except UNREADABLE:
            continue
        if scan.is_consistent(images):
            return scan
    return None


def save_scan(place: Path, key: str, scan: Scan) -> None:
    """Write the cache to `place`, or to the user's cache folder where that is not allowed."""
    save_somewhere(place, scan.plain_arrays() | {"key": np.frombuffer(key.encode(), np.uint8)})


def save_somewhere(place: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what was found to `place`, or to its stand-in where that is not allowed."""
    reason: OSError | str = "write-protected"
    for path in (place, stand_in(place)):
        if path == place and _is_protected(place.parent):
            continue
        try:
            save_arrays(path, arrays)
            return
        except OSError as error:
            reason = error.strerror or error
    LOG.warning(f"{place}: not saved ({reason}); the next run scans the labels again")


def stand_in(place: Path) -> Path:
    """Where a cache is kept whose own place cannot be written to."""
    digest = hashlib.sha256(os.path.abspath(place).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "labels" / f"{digest[:32]}.npz"


def _is_protected(folder: Path) -> bool:
    """Whether nobody may write: a shared folder marked read-only stays as it is, even when root asks."""
    try:
        return not folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    except OSError:
        return False


def _size_and_time(path: str) -> str:
    try:
        stat = os.stat(path)  # noqa: PTH116 - a Path for each of a million files takes longer than asking
    except OSError:
        return "missing"
    return f"{stat.st_size}:{stat.st_mtime_ns}"
