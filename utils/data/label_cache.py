"""The result of scanning a dataset (`Scan`), and the cache file that keeps it.

The file is an uncompressed .npz of plain arrays: reading it runs no code, and processes map it into memory
and share its pages.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from utils.base.log import LOG
from utils.base.paths import atomic_write, cache_folder
from utils.data.image_lists import label_name, label_path
from utils.data.packed import PackedPaths

VERSION = 2  # of label caches and shard indices; raise it when the rules for images or labels change
USABLE, BACKGROUND, CORRUPT = 0, 1, 2
UNLISTED = 3  # not in the annotations: the image is left out
LINE_SKIPPED = "the line is skipped"
UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)
_ARRAYS = ("status", "sizes", "counts", "rows", "lines", "outlined", "points")  # names in the file


class Subject(IntEnum):
    """Subject of a note; cache files contain the numbers."""

    IMAGE = 0
    LABELS = 1  # the label file
    LINE = 2  # one line of the label file, or an annotation of COCO, which is skipped
    FILE = 3  # COCO annotations as a whole
    CLIPPED = 4  # lines of label files with a coordinate slightly outside the image: count and first
    MORE = 5  # further lines of one label file that are skipped: their count


@dataclass
class Note:
    """A message about an image or its labels."""

    index: int  # of the image
    subject: Subject
    text: str


@dataclass
class Scan:
    """The status and labels of N images, the rows of all label files one after another."""

    status: np.ndarray  # (N,) uint8: USABLE, BACKGROUND, CORRUPT or UNLISTED
    sizes: np.ndarray  # (N, 2) int32: width, height
    counts: np.ndarray  # (N,) int32: rows of each image
    rows: np.ndarray  # (R, 5) float32: class, xywhn
    lines: np.ndarray  # (R,) int32: line number of each row in its file
    outlined: np.ndarray  # (R,) int32: points of each row's polygon, 0 for a box
    points: np.ndarray  # (P, 2) float32: points of all polygons
    notes: list[Note] = field(default_factory=list)

    def is_consistent(self, images: int) -> bool:
        """Return whether the arrays fit together and describe this number of images."""
        total, points = len(self.rows), len(self.points)
        expected = {
            "status": ((images,), np.uint8), "sizes": ((images, 2), np.int32),
            "counts": ((images,), np.int32), "rows": ((total, 5), np.float32),
            "lines": ((total,), np.int32), "outlined": ((total,), np.int32),
            "points": ((points, 2), np.float32),
        }  # fmt: skip
        found = {name: (getattr(self, name).shape, getattr(self, name).dtype) for name in _ARRAYS}
        if found != expected:
            return False
        lengths = np.concatenate((self.counts, self.outlined))
        if (self.status > UNLISTED).any() or (self.sizes[self.status < CORRUPT] < 1).any():
            return False
        if any(not 0 <= note.index < images for note in self.notes):
            return False
        return self.counts.sum() == total and self.outlined.sum() == points and lengths.min(initial=0) >= 0

    @classmethod
    def concatenate(cls, scans: Sequence[Scan]) -> Scan:
        """Join several scans (at least one) in their order."""
        before = np.cumsum([0, *(len(scan.status) for scan in scans)]).tolist()
        notes = [
            Note(note.index + first, note.subject, note.text)
            for first, scan in zip(before, scans, strict=False)
            for note in scan.notes
        ]
        arrays = {name: np.concatenate([getattr(scan, name) for scan in scans]) for name in _ARRAYS}
        return cls(**arrays, notes=notes)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """Return the scan as named arrays; `from_arrays` is the inverse."""
        notes = json.dumps([(note.index, int(note.subject), note.text) for note in self.notes]).encode()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        return {**arrays, "notes": np.frombuffer(notes, np.uint8)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> Scan:
        """Make a scan from the arrays of `to_arrays`.

        Raises:
            KeyError, TypeError, ValueError: an array is missing, or the notes are malformed.
        """
        notes = [_read_note(*entry) for entry in json.loads(arrays["notes"].tobytes())]
        return cls(**{name: arrays[name] for name in _ARRAYS}, notes=notes)


def _read_note(index: Any, subject: Any, text: Any) -> Note:
    if type(index) is not int or not isinstance(text, str):
        raise ValueError(f"not a note: {index!r}, {subject!r}, {text!r}")
    if subject is True and text.endswith(LINE_SKIPPED):  # older files hold true for LABELS and for LINE
        subject = Subject.LINE
    return Note(index, Subject(subject), text)


def cache_path(sources: Sequence[Path], images: Sequence[Path]) -> Path:
    """Return the path of a split's cache: beside its label folder, or beside its list of images."""
    last = sources[-1]
    if last.is_file():
        path = last.with_suffix(".cache.npz")
    else:
        folder = label_path(last / "x").parent
        folder = folder if folder.is_dir() else label_path(images[0]).parent
        path = folder.parent / f"{folder.name}.cache.npz"
    if len(sources) > 1:  # another split may end with the same source
        tag = hashlib.sha256("\n".join(map(str, sources)).encode("utf-8", "surrogateescape")).hexdigest()[:8]
        path = path.with_name(path.name.replace(".cache.npz", f"-{tag}.cache.npz"))
    return path


def content_keys(images: PackedPaths, annotations: str | None = None) -> tuple[str, str]:
    """Compute two digests of the images and label files of a dataset.

    Args:
        images: all images.
        annotations: digest of the annotations that take the place of label files.

    Returns:
        The key of the cache (relative paths, file sizes and modification times), and a digest without the
        times, which stays the same when the dataset is copied.
    """
    shared = f" {annotations}" if annotations else ""
    key, content = hashlib.sha256(f"labels {VERSION}{shared}".encode()), hashlib.sha256(shared.encode())
    for index in range(len(images)):
        relative = images.relative_path(index)
        path = images.root + relative
        image, labels = _size_and_time(path), "" if annotations else _size_and_time(label_name(path))
        key.update(f"{relative}\0{image}\0{labels}\n".encode("utf-8", "surrogateescape"))
        sizes = f"{relative}\0{image.partition(':')[0]}\0{labels.partition(':')[0]}\n"
        content.update(sizes.encode("utf-8", "surrogateescape"))
    return key.hexdigest(), content.hexdigest()


def _size_and_time(path: str) -> str:
    try:
        status = os.stat(path)  # noqa: PTH116 - making a Path for each of a million files takes longer
    except OSError:
        return "missing"
    return f"{status.st_size}:{status.st_mtime_ns}"


def load_scan(path: Path, key: str, images: int) -> Scan | None:
    """Read the cache at `path` or its fallback; return None if neither is intact and has this key."""
    for candidate in (path, fallback_path(path)):
        try:
            arrays = map_arrays(candidate)
            if arrays["key"].tobytes().decode() != key:
                continue
            scan = Scan.from_arrays(arrays)
        except UNREADABLE:
            continue
        if scan.is_consistent(images):
            return scan
    return None


def save_scan(path: Path, key: str, scan: Scan) -> None:
    """Write the cache to `path`, or to the user's cache folder if `path` is not writable or has no folder."""
    save_with_fallback(path, scan.to_arrays() | {"key": np.frombuffer(key.encode(), np.uint8)})


def save_with_fallback(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays to `path`, or to `fallback_path(path)` if it is not writable; warn if both fail."""
    reason: OSError | str = "write-protected"
    for candidate in (path, fallback_path(path)):
        if candidate == path and (not path.parent.is_dir() or _is_protected(path.parent)):
            continue  # no folder is made in a dataset
        try:
            save_arrays(candidate, arrays)
            return
        except OSError as error:
            reason = error.strerror or error
    LOG.warning(f"{path}: not saved ({reason}); the next run scans the labels again")


def fallback_path(path: Path) -> Path:
    """Return where a cache is kept if its own folder is not writable."""
    digest = hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest()
    return cache_folder() / "labels" / f"{digest[:32]}.npz"


def _is_protected(folder: Path) -> bool:
    """Return whether no user has write permission: root respects that too, for shared read-only folders."""
    try:
        return not folder.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH)
    except OSError:
        return False


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write named arrays atomically to an uncompressed .npz file.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(file: Path | BinaryIO) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Raises:
        one of UNREADABLE: it is not a file of `save_arrays`.
    """
    with np.load(file, allow_pickle=False) as content:
        return {name: content[name] for name in content.files}


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """Map the arrays of a file into memory: pages are read when they are used, and shared by processes.

    The arrays are copy-on-write: writing to them leaves the file as it is.

    Raises:
        one of UNREADABLE: it is not a file of `save_arrays`.
    """
    with path.open("rb") as file, zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError(f"{path}: compressed")
        return {member.filename.removesuffix(".npy"): _map_array(path, file, member) for member in members}


def _map_array(path: Path, file: BinaryIO, member: zipfile.ZipInfo) -> np.ndarray:
    file.seek(member.header_offset)
    header = file.read(30)  # a zip local file header; its last four bytes are the lengths of two fields
    file.seek(int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little"), os.SEEK_CUR)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError(f"{path}: {member.filename} holds objects")
    if 0 in shape:
        return np.zeros(shape, dtype)
    mapped = np.memmap(path, dtype, "c", file.tell(), shape, "F" if fortran else "C")
    return mapped.view(np.ndarray)  # slices of a memmap and arithmetic with it are microseconds slower
