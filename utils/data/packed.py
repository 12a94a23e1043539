"""Millions of paths, label rows and polygons in a few flat arrays, which look like lists.

A list of Python objects costs hundreds of bytes an entry, and forked workers copy it page by page as they
count references. Arrays are shared as they are: an entry is a view, made when it is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar, overload

import numpy as np

from utils.base.errors import DataError
from utils.data.images import decode_image, read_bytes

T = TypeVar("T")


class _Table(Sequence[T]):
    """Entries by number; a subclass makes one, and a table of some of them."""

    def __len__(self) -> int:
        raise NotImplementedError

    def _entry(self, index: int) -> T:
        raise NotImplementedError

    def take(self, indices: np.ndarray) -> _Table[T]:
        """A table of the entries with these numbers (or of those where a mask is true)."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> _Table[T]: ...
    def __getitem__(self, index: int | slice) -> T | _Table[T]:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        number = int(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"no entry {number} of {len(self)}")
        return self._entry(number % len(self))


class PackedImages(_Table[Path]):
    """Where images are, and how to get at them."""

    def read(self, index: int) -> np.ndarray:
        """The bytes of an image's file, (n,) uint8.

        Raises:
            DataError: they cannot be read.
        """
        raise NotImplementedError

    def read_image(self, index: int, shrink: int = 1) -> np.ndarray:
        """An image as BGR uint8 (H, W, 3); for `shrink` see `decode_image`.

        Raises:
            DataError: it cannot be read.
        """
        return decode_image(self.read(index), self.title(index), shrink)

    def title(self, index: int) -> str:
        """What to call an image in a message."""
        return str(self[index])

    def named(self, path: str) -> np.ndarray:
        """The image of a path as the table gives it; quick for the first ones.

        Raises:
            DataError: it cannot be read, or is not in the table.
        """
        index = next((index for index, one in enumerate(self) if str(one) == path), None)
        if index is None:
            raise DataError(f"{path}: not in the set")
        return self.read_image(index)

    def identity(self, index: int) -> str:
        """What changes when an image does: its place, size and time.

        Raises:
            OSError: it is not there any more.
        """
        raise NotImplementedError

    def take(self, indices: np.ndarray) -> PackedImages:
        """See `_Table.take`."""
        raise NotImplementedError


class PackedPaths(PackedImages):
    """Paths below a common folder.

    Args:
        root: the folder.
        text: (bytes,) uint8, the paths below it one after another.
        starts: (N,) where each begins.
        ends: (N,) where it ends.
    """

    def __init__(self, root: str, text: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> None:
        self.root = root
        self.text = text
        self.starts = starts
        self.ends = ends

    @classmethod
    def of(cls, paths: Iterable[str]) -> PackedPaths:
        """A table of paths; at least one."""
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

    def _entry(self, index: int) -> Path:
        return Path(self.root + self.place(index))

    def place(self, index: int) -> str:
        """A path as text, below the common folder."""
        return os.fsdecode(self.text[self.starts[index] : self.ends[index]].tobytes())

    def read(self, index: int) -> np.ndarray:
        """See `PackedImages.read`."""
        return read_bytes(self[index])

    def identity(self, index: int) -> str:
        """See `PackedImages.identity`."""
        path = self[index]
        stat = path.stat()
        return f"{os.path.abspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}"

    def take(self, indices: np.ndarray) -> PackedPaths:
        """See `_Table.take`; the text is shared."""
        return PackedPaths(self.root, self.text, self.starts[indices], self.ends[indices])


class PackedRows(_Table[np.ndarray]):
    """Some rows for each entry.

    Args:
        rows: (R, ...) all of them.
        starts: (N,) the first row of each entry.
        counts: (N,) how many it has.
    """

    def __init__(self, rows: np.ndarray, starts: np.ndarray, counts: np.ndarray) -> None:
        self.rows = rows
        self.starts = starts.astype(np.int64)
        self.counts = counts.astype(np.int32)

    def __len__(self) -> int:
        return len(self.starts)

    def _entry(self, index: int) -> np.ndarray:
        start = self.starts[index]
        return self.rows[start : start + self.counts[index]]

    def take(self, indices: np.ndarray) -> PackedRows:
        """See `_Table.take`; the rows are shared."""
        return PackedRows(self.rows, self.starts[indices], self.counts[indices])

    def numbers(self) -> np.ndarray:
        """The rows of all entries, in their order, as numbers into `rows`."""
        before = np.cumsum(self.counts) - self.counts
        return np.repeat(self.starts - before, self.counts) + np.arange(self.counts.sum())

    def owners(self) -> np.ndarray:
        """The entry that each of `numbers` belongs to."""
        return np.repeat(np.arange(len(self)), self.counts)

    def joined(self) -> np.ndarray:
        """The rows of all entries, in their order."""
        return self.rows[self.numbers()]


class PackedPolygons(_Table[list[np.ndarray]]):
    """The polygons of each entry's rows: (k, 2) each, k = 0 for a box; an empty list if all are boxes.

    Args:
        points: (P, 2) of all polygons.
        ends: (R,) where the points of each row end.
        rows: the rows of each entry; only their numbers are used.
    """

    def __init__(self, points: np.ndarray, ends: np.ndarray, rows: PackedRows) -> None:
        self.points = points
        self.ends = ends
        self.of_entry = rows

    def __len__(self) -> int:
        return len(self.of_entry)

    def _entry(self, index: int) -> list[np.ndarray]:
        first = int(self.of_entry.starts[index])
        last = first + int(self.of_entry.counts[index])
        begin = int(self.ends[first - 1]) if first else 0
        if last == first or self.ends[last - 1] == begin:
            return []
        ends = self.ends[first:last]
        return [self.points[a:b] for a, b in zip((begin, *ends[:-1]), ends, strict=True)]

    def take(self, indices: np.ndarray) -> PackedPolygons:
        """See `_Table.take`; the points are shared."""
        return PackedPolygons(self.points, self.ends, self.of_entry.take(indices))
