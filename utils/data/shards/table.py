"""Images inside shards, with the same interface as image files."""

from __future__ import annotations

import os
import sys
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from utils.data.packed import PackedImages, PackedPaths
from utils.data.shards.store import DownloadError, ShardInfo, local_copy
from utils.data.shards.urls import is_url

_MAX_OPEN = 128  # files that a process keeps open
_TOUCH = 60.0  # seconds between updates of a copy's time, which keep it from being removed


@dataclass(frozen=True)
class Shard:
    """A shard, and the SHA-256 of its content if it is known."""

    info: ShardInfo
    sha256: str | None = None


class ShardTable(PackedImages):
    """Images by their position in shards.

    Args:
        shards: all shards.
        names: paths of the images within their shards.
        shard: (N,) index of each image's shard.
        offset: (N,) first byte of each image in its shard.
        length: (N,) bytes of each image.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        names: PackedPaths,
        shard: np.ndarray,
        offset: np.ndarray,
        length: np.ndarray,
    ) -> None:
        self.shards = shards
        self.names = names
        self.shard = shard.astype(np.int32)
        self.offset = offset.astype(np.int64)
        self.length = length.astype(np.int64)
        self._files = _OpenFiles()

    @property
    def remote(self) -> bool:
        """Whether any shard has to be downloaded."""
        return any(is_url(shard.info.url) for shard in self.shards)

    def __len__(self) -> int:
        return len(self.shard)

    def take(self, indices: np.ndarray) -> ShardTable:
        selected = (self.shard[indices], self.offset[indices], self.length[indices])
        return ShardTable(self.shards, self.names.take(indices), *selected)

    def _entry(self, index: int) -> Path:
        return Path(self.shards[self.shard[index]].info.url, self.names.relative_path(index))

    def title(self, index: int) -> str:
        return f"{self.shards[self.shard[index]].info.url}/{self.names.relative_path(index)}"

    def read(self, index: int) -> np.ndarray:
        shard, length = self.shards[self.shard[index]], int(self.length[index])
        try:
            content = self._files.read(shard, int(self.offset[index]), length)
        except OSError as error:
            raise DownloadError(f"{shard.info.url}: {error.strerror or error}") from error
        if len(content) < length:
            raise DownloadError(f"{shard.info.url}: is shorter than its index says")
        return np.frombuffer(content, np.uint8)

    def fingerprint(self, index: int) -> str:
        info = self.shards[self.shard[index]].info
        return f"{info.url}\0{info.size}\0{info.stamp}\0{self.offset[index]}"


class _OpenFiles:
    """The shard files that are open; forked processes may share them, as `pread` does not move a position."""

    def __init__(self) -> None:
        self._files: OrderedDict[Shard, int] = OrderedDict()  # descriptors, least recently used first
        self._touched: dict[Shard, float] = {}

    def read(self, shard: Shard, offset: int, length: int) -> bytes:
        if not hasattr(os, "pread"):  # Windows
            with local_copy(shard.info, shard.sha256).open("rb") as file:
                file.seek(offset)
                return file.read(length)
        if shard not in self._files:
            self._files[shard] = os.open(local_copy(shard.info, shard.sha256), os.O_RDONLY)
            if len(self._files) > _MAX_OPEN:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard)
        if is_url(shard.info.url) and time.monotonic() - self._touched.get(shard, 0.0) > _TOUCH:
            self._touched[shard] = time.monotonic()
            with suppress(OSError):  # a removed file stays readable until it is closed
                os.utime(self._files[shard])
        return os.pread(self._files[shard], length, offset)

    def __getstate__(self) -> dict[str, Any]:
        return {"_files": OrderedDict(), "_touched": {}}

    def __del__(self) -> None:
        if not sys.is_finalizing():
            for file in self._files.values():
                os.close(file)
