"""Millions of paths, label rows and polygons in a few flat arrays that are indexed like lists.

A list of Python objects takes hundreds of bytes per entry, and forked workers copy it page by page because
reading an object changes its reference count. Flat arrays stay shared: an entry is a view, made on access.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from utils.base.errors import DataError
from utils.data.images import decode_image, read_bytes

T = TypeVar("T")


class _PackedSequence(Sequence[T]):
    """Base class: a sequence whose entries are made on access."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of entries."""

    @abstractmethod
    def take(self, indices: np.ndarray) -> _PackedSequence[T]:
        """Return the entries with these indices (or where a mask is true) in that order; data is shared."""

    @abstractmethod
    def _entry(self, index: int) -> T:
        """Return an entry; 0 <= index < len(self)."""

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> _PackedSequence[T]: ...
    def __getitem__(self, index: int | slice) -> T | _PackedSequence[T]:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"index {number} of {len(self)} entries")
        return self._entry(number % len(self))


class PackedImages(_PackedSequence[Path]):
    """Images: their paths as entries, and access to their content."""

    @abstractmethod
    def take(self, indices: np.ndarray) -> PackedImages:
        """Return the images with these indices (or where a mask is true) in that order."""

    @abstractmethod
    def read(self, index: int) -> np.ndarray:
        """Return the bytes of an image file, (n,) uint8.

        Raises:
            DataError: the file cannot be read.
        """

    @abstractmethod
    def fingerprint(self, index: int) -> str:
        """Return a text that changes when the image file does: its path, size and modification time.

        Raises:
            OSError: the file does not exist any more.
        """

    def read_image(self, index: int, shrink: int = 1) -> np.ndarray:
        """Decode an image to BGR uint8 (H, W, 3); for `shrink` see `decode_image`.

        Raises:
            DataError: the image cannot be read.
        """
        return decode_image(self.read(index), self.title(index), shrink)

    def title(self, index: int) -> str:
        """Return the name of an image for messages."""
        return str(self[index])

    def read_by_path(self, path: str) -> np.ndarray:
        """Decode the image with this path, as the entries give it; fast for the first images.

        Raises:
            DataError: the image cannot be read, or is not among the entries.
        """
        index = next((index for index, one in enumerate(self) if str(one) == path), None)
        if index is None:
            raise DataError(f"{path}: not an image of this dataset")
        return self.read_image(index)


class PackedPaths(PackedImages):
    """Image files below a common folder.

    Args:
        root: the folder.
        text: (bytes,) uint8, the relative paths one after another.
        starts: (N,) first byte of each path.
        ends: (N,) end of each path.
    """

    def __init__(self, root: str, text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.root = root
        self.text = text
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, paths: Iterable[str]) -> PackedPaths:
        """Pack paths; at least one."""
        paths = list(paths)
        folders = {path.rpartition(os.sep)[0] or os.sep for path in paths}
        root = os.path.commonpath([os.path.abspath(folder) for folder in folders])
        prefix = root.rstrip(os.sep) + os.sep
        if not all(path.startswith(prefix) for path in paths):
            prefix = ""
        encoded = [os.fsencode(path[len(prefix) :]) for path in paths]
        ends = np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)))
        starts = np.concatenate((np.zeros(1, np.int64), ends[:-1]))
        return cls(prefix, np.frombuffer(b"".join(encoded), np.uint8), starts, ends)

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, indices: np.ndarray) -> PackedPaths:
        return PackedPaths(self.root, self.text, self.starts[indices], self.ends[indices])

    def _entry(self, index: int) -> Path:
        return Path(self.root + self.relative_path(index))

    def relative_path(self, index: int) -> str:
        """Return a path as text, relative to the common folder."""
        return os.fsdecode(self.text[self.starts[index] : self.ends[index]].tobytes())

    def read(self, index: int) -> np.ndarray:
        return read_bytes(self[index])

    def fingerprint(self, index: int) -> str:
        path = self[index]
        stat = path.stat()
        return f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"


class PackedRows(_PackedSequence[np.ndarray]):
    """A variable number of rows per entry.

    Args:
        rows: (R, ...) all rows.
        starts: (N,) first row of each entry.
        counts: (N,) number of rows of each entry.
    """

    def __init__(self, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> None:
        self.rows = rows
        self.starts = starts.astype(np.int64)
        self.counts = counts.astype(np.int32)

    def __len__(self) -> int:
        return len(self.starts)

    def take(self, indices: np.ndarray) -> PackedRows:
        return PackedRows(self.rows, self.starts[indices], self.counts[indices])

    def _entry(self, index: int) -> np.ndarray:
        start = self.starts[index]
        return self.rows[start : start + self.counts[index]]

    def joined(self) -> np.ndarray:
        """Return the rows of all entries in their order, (sum of counts, ...)."""
        before = np.cumsum(self.counts) - self.counts
        return self.rows[np.repeat(self.starts - before, self.counts) + np.arange(self.counts.sum())]


class PackedPolygons(_PackedSequence[list[np.ndarray]]):
    """The polygons of each entry's rows: (k, 2) each, k = 0 for a box; an empty list if all are boxes.

    Args:
        points: (P, 2) points of all polygons.
        ends: (R,) end of each row's points.
        rows: the rows of each entry; only their starts and counts are used.
    """

    def __init__(self, points: np.ndarray, ends: np.ndarray, rows: PackedRows) -> None:
        self.points = points
        self.ends = ends
        self.of_entry = rows

    def __len__(self) -> int:
        return len(self.of_entry)

    def take(self, indices: np.ndarray) -> PackedPolygons:
        return PackedPolygons(self.points, self.ends, self.of_entry.take(indices))

    def count_boxes(self) -> tuple[int, int]:
        """Return the number of rows, and of those that are boxes."""
        counts = self.of_entry.counts
        before = np.cumsum(counts) - counts
        rows = np.repeat(self.of_entry.starts - before, counts) + np.arange(counts.sum())
        lengths = np.diff(self.ends, prepend=0)[rows]
        return len(rows), int((lengths == 0).sum())

    def _entry(self, index: int) -> list[np.ndarray]:
        first = int(self.of_entry.starts[index])
        last = first + int(self.of_entry.counts[index])
        start = int(self.ends[first - 1]) if first else 0
        if last == first or self.ends[last - 1] == start:
            return []
        ends = self.ends[first:last]
        return [self.points[a:b] for a, b in zip((start, *ends[:-1]), ends, strict=True)]
