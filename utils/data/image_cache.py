"""Cache decoded and resized images, in memory that all workers share or in a folder."""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import multiprocessing
import os
import shutil
import tempfile
import threading
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from utils.base.log import LOG
from utils.base.paths import cache_folder
from utils.data.packed import PackedImages

MARGIN = 1.1  # free memory or disk that is required, relative to the size of the images
# Small datasets are cached by default, as decoding takes longer than everything else: at most this many bytes
# and this share of the free memory.
DEFAULT_BYTES, DEFAULT_SHARE = 512 * 2**20, 0.1
_CGROUPS = (  # files of limit, usage, statistics: version 2, version 1
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


class ImageCache(Protocol):
    """Images by index; a worker that decodes an image puts it into the cache."""

    def get(self, index: int) -> np.ndarray | None:
        """Return an image (h, w, 3), which must not be written to; None if it is not cached."""

    def put(self, index: int, image: np.ndarray) -> None:
        """Cache an image, unless its shape is not the expected one."""


def make_cache(
    kind: str | None, images: PackedImages, shapes_hw: np.ndarray, tag: str, prefix: str = ""
) -> ImageCache | None:
    """Make a cache for images of known shapes; return None if there is no room for it.

    Args:
        kind: ram, disk, or None: ram if the dataset is small.
        images: the files.
        shapes_hw: (N, 2) int: height and width of each image when resized.
        tag: the way in which images are resized; files of the disk cache with another tag are not used.
        prefix: text before messages.
    """
    need = int(shapes_hw.prod(1).sum()) * 3
    if kind == "disk":
        return _make_disk_cache(images, tag, need, prefix)
    free = available_memory()
    if kind is None:
        small = free is not None and need <= min(DEFAULT_BYTES, DEFAULT_SHARE * free)
        return RamCache(shapes_hw) if small else None
    if free is not None and need * MARGIN > free:
        LOG.warning(
            f"{prefix}--cache ram: needs {need * MARGIN / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; "
            "images are not cached (try --cache disk)"
        )
        return None
    LOG.info(f"{prefix}Caching images ({need / 1e9:.1f}GB ram), filled during the first epoch")
    return RamCache(shapes_hw)


class RamCache:
    """Images in one block of memory that forked workers share.

    Pages take memory when an image is written to them. A spawned worker starts with an empty block of its
    own.
    """

    def __init__(self, shapes_hw: np.ndarray) -> None:
        self.shapes = shapes_hw.astype(np.int64)
        self._open()

    def _open(self) -> None:
        sizes = self.shapes.prod(1) * 3
        self._ends = sizes.cumsum()
        self._starts = self._ends - sizes
        block = mmap.mmap(-1, int(self._ends[-1]) + len(sizes))
        memory = np.frombuffer(block, np.uint8)
        self._pixels, self._present = memory[: self._ends[-1]], memory[self._ends[-1] :]
        # The lock orders the writes: a process that sees an image marked as present sees all of its pixels.
        self._lock: AbstractContextManager[Any] = _make_lock()

    def get(self, index: int) -> np.ndarray | None:
        with self._lock:
            if not self._present[index]:
                return None
        image = self._slot(index)
        image.flags.writeable = False
        return image

    def put(self, index: int, image: np.ndarray) -> None:
        if image.shape != (*self.shapes[index], 3):
            return
        self._slot(index)[:] = image  # two workers may write at the same time, the same pixels
        with self._lock:
            self._present[index] = 1

    def _slot(self, index: int) -> np.ndarray:
        height, width = self.shapes[index]
        return self._pixels[self._starts[index] : self._ends[index]].reshape(height, width, 3)

    def __getstate__(self) -> dict[str, Any]:
        return {"shapes": self.shapes}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shapes = state["shapes"]
        self._open()


def _make_lock() -> AbstractContextManager[Any]:
    """Return a lock for several processes; for threads where there is no shared memory, and so no workers."""
    try:
        return multiprocessing.Lock()
    except OSError:
        return threading.Lock()


class DiskCache:
    """Resized images in a folder, by path, size and modification time of the original."""

    def __init__(self, images: PackedImages, tag: str, folder: Path) -> None:
        self.images = images
        self.tag = tag
        self.folder = folder

    def get(self, index: int) -> np.ndarray | None:
        try:
            return np.load(self._path(index), allow_pickle=False)
        except (OSError, ValueError, EOFError):  # missing, or truncated by a crash
            return None

    def put(self, index: int, image: np.ndarray) -> None:
        with contextlib.suppress(OSError):  # the disk is full, or the original is gone
            path = self._path(index)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
            try:
                with os.fdopen(handle, "wb") as file:
                    np.save(file, image)
                os.replace(name, path)
            except OSError:
                os.unlink(name)  # noqa: PTH108
                raise

    def _path(self, index: int) -> Path:
        key = f"{self.tag}\0{self.images.fingerprint(index)}"
        digest = hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
        return self.folder / digest[:2] / f"{digest[2:32]}.npy"


def _make_disk_cache(images: PackedImages, tag: str, need: int, prefix: str) -> DiskCache | None:
    folder = cache_folder() / "images"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        LOG.warning(f"{prefix}--cache disk: {folder}: {error.strerror}; images are not cached")
        return None
    if need * MARGIN > free:
        LOG.warning(
            f"{prefix}--cache disk: needs {need * MARGIN / 1e9:.1f} GB in {folder}, "
            f"{free / 1e9:.1f} GB are free; images are not cached"
        )
        return None
    LOG.info(f"{prefix}Caching images ({need / 1e9:.1f}GB disk) in {folder}, filled during the first epoch")
    return DiskCache(images, tag, folder)


def available_memory() -> int | None:
    """Return the bytes that can be used without swapping, within the container's limit; None if unknown."""
    known = [value for value in (_machine_memory(), *map(_group_memory, _CGROUPS)) if value is not None]
    return min(known, default=None)


def _machine_memory() -> int | None:
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(AttributeError, ValueError, OSError):  # no sysconf on Windows
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _group_memory(files: tuple[str, str, str]) -> int | None:
    """Return the bytes left in a control group (container); cached pages of files count as free."""
    folder = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError):  # no such group, or no limit (`max`)
        limit, used = (int((folder / name).read_text()) for name in files[:2])
        info = dict(line.split() for line in (folder / files[2]).read_text().splitlines())
        return max(limit - used + int(info.get("inactive_file", 0)), 0)
    return None
