"""Batches of a dataset, made by worker processes: the same batches for any number of them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, get_worker_info

from utils.base.device import keep_freed_memory
from utils.base.errors import ConfigError, DataError
from utils.base.processes import usable_cores
from utils.base.seeds import generator
from utils.data.dataset import DetectionDataset, Item, SampleKey, Shapes
from utils.data.samplers import BUFFER, BatchKeys, Mix, Share
from utils.data.shards.prefetch_shards import ShardPrefetcher
from utils.data.shards.table import ShardTable

QUAD = 4  # images that one of a quad batch is made of


class Batch(NamedTuple):
    """B images for the network, and what is on them."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    targets: Tensor  # (T, 6) float32: index in the batch, class, xywhn
    paths: list[str]
    shapes: list[Shapes | None]  # see `Item`


def make_room(batch_size: int, height: int, width: int) -> Tensor:
    """Memory for a batch, (batch_size, 3, height, width) uint8, not filled.

    A worker gets memory that it shares with the main process; what lies elsewhere is copied on its way.
    """
    count = batch_size * 3 * height * width
    if get_worker_info() is None:
        return torch.empty((batch_size, 3, height, width), dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(count)  # what torch's own collate function takes
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(batch_size, 3, height, width)


def collate(items: Sequence[Item], images: Tensor | None = None) -> Batch:
    """Number the labels of images of one size, and stack them unless they lie in `images` already."""
    for index, item in enumerate(items):
        item.labels[:, 0] = index
    if images is None:
        # numpy copies in this thread; torch would wake others, and wait long for them if cores are busy
        images = torch.from_numpy(np.stack([item.image.numpy() for item in items]))
    return Batch(
        images,
        torch.cat([item.labels for item in items]),
        [item.path for item in items],
        [item.shapes for item in items],
    )


def make_quad(items: Sequence[Item], enlarge: bool) -> Item:
    """Make one image of twice the size: the first of four enlarged, or all four in a square.

    In the square the second stands below the first, the third to the right of it.
    """
    first = items[0]
    if enlarge:
        image = functional.interpolate(first.image[None].float(), scale_factor=2.0, mode="bilinear")
        return first._replace(image=image[0].to(torch.uint8))
    top, bottom = (torch.cat((items[i].image, items[i + 2].image), 2) for i in (0, 1))
    labels = []
    for item, (right, down) in zip(items, ((0, 0), (0, 1), (1, 0), (1, 1)), strict=True):
        moved = item.labels.clone()
        moved[:, 2:4] += torch.tensor((right, down))
        moved[:, 2:] /= 2
        labels.append(moved)
    return first._replace(image=torch.cat((top, bottom), 1), labels=torch.cat(labels))


__all__ = ["Batch", "Loader", "Share", "make_loader"]

_QUAD = 7933  # a stream of random numbers that has nothing to do with those of any sample


class Loader:
    """Iterate the batches of one epoch after the other; `set_epoch` chooses which one comes next.

    `len()` is the number of batches in a whole epoch, also when an iteration starts in the middle of it.
    """

    def __init__(
        self,
        dataset: DetectionDataset,
        keys: BatchKeys,
        workers: int,
        quad: bool,
        pin_memory: bool,
    ) -> None:
        self.dataset = dataset
        self.keys = keys
        self.workers = workers
        self._loader: DataLoader[Batch | DataError] | None = DataLoader(
            _BatchReader(dataset, quad),
            batch_size=None,  # the reader makes batches itself
            sampler=keys,
            num_workers=workers,
            collate_fn=_unchanged,
            pin_memory=pin_memory,
            worker_init_fn=_set_up_worker if workers else None,
            persistent_workers=workers > 0,
            # Forking shares the image cache and starts at once; other systems spawn.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Go to an epoch: its order and augmentations depend on the seed and its number only."""
        self.keys.epoch = epoch
        self.keys.first_batch = first_batch

    def set_weights(self, image_weights: np.ndarray | None) -> None:
        """Draw images in proportion to weights (N,) from the next iteration on; None shows each once.

        Raises:
            ConfigError: the images lie in shards at an address.
        """
        if image_weights is not None:
            _refuse_weights(self.dataset)
        self.keys.weights = _checked(image_weights, len(self.dataset))

    def set_share(self, share: Share) -> None:
        """Change what this process gets of the batches, from the next iteration on."""
        self.keys.share = share

    def __len__(self) -> int:
        return self.keys.batches

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        images = self.dataset.image_files
        if not (isinstance(images, ShardTable) and images.remote):
            return self._batches(self._loader)
        return self._prefetched(self._loader, images)

    def _batches(self, loader: DataLoader[Batch | DataError]) -> Iterator[Batch]:
        with _interrupts_held():
            batches = iter(loader)
        return map(_delivered, batches)

    def _prefetched(self, loader: DataLoader[Batch | DataError], images: ShardTable) -> Iterator[Batch]:
        """The batches, while the shards that come next are downloaded."""
        numbers = self.keys.numbers()
        buffer = self.keys.mix.buffer if self.keys.mix is not None and self.keys.shuffle else 0
        ahead = ShardPrefetcher(images, self.keys.order(), numbers.start * self.keys.batch_size, buffer)
        try:
            for number, batch in zip(numbers, self._batches(loader), strict=True):
                ahead.reach(number * self.keys.batch_size)
                yield batch
        finally:
            ahead.close()

    def close(self) -> None:
        """End the worker processes, now: an iterator that an error holds would be collected late."""
        loader, self._loader = self._loader, None
        iterator = getattr(loader, "_iterator", None)
        if self.workers and iterator is not None:
            iterator._shutdown_workers()


def make_loader(
    dataset: DetectionDataset,
    batch_size: int,
    *,
    workers: int = 8,
    shuffle: bool = False,
    seed: int = 0,
    quad: bool = False,
    image_weights: np.ndarray | None = None,
    pin_memory: bool = False,
    share: Share | None = None,
    buffer: int = BUFFER,
) -> Loader:
    """Make a loader.

    Args:
        dataset: where the images come from.
        batch_size: images a batch; the last one may have fewer.
        workers: processes, at most one a core, none for batches of one; with 0 this process does it all.
        shuffle: another order in each epoch. Rectangular batches keep theirs.
        seed: of the order.
        quad: batches have a quarter of the images, twice as large: four in one, or one enlarged.
        image_weights: (N,) how often to show each image, relative to the others; None shows each once.
        pin_memory: put batches where a GPU copies them faster.
        share: what this process gets of them, where several work together.
        buffer: images among which those of shards are mixed.

    Raises:
        ConfigError: settings that do not go together.
    """
    planned, wanted = (min(size, len(dataset)) for size in (dataset.batch_size, batch_size))
    if dataset.rect and (planned != wanted or quad or image_weights is not None):
        raise ConfigError("rectangular batches keep their images together: no --quad, no --image-weights")
    weights = _checked(image_weights, len(dataset))
    share = share or Share()
    part = batch_size if share.whole_batches else batch_size // share.world
    if quad and part % QUAD:
        raise ConfigError(f"--quad: each process needs a multiple of {QUAD} images a batch, not {part}")
    mix = None
    if isinstance(images := dataset.image_files, ShardTable):
        mix = Mix(images.shard, buffer)
        if weights is not None:
            _refuse_weights(dataset)
    order = shuffle and not dataset.rect
    keys = BatchKeys(
        len(dataset), batch_size, order, seed, drop_last=quad, weights=weights, share=share, mix=mix
    )
    if not keys.batches:
        raise ConfigError(f"--quad: {len(dataset)} images do not fill a batch of {batch_size}")
    return Loader(dataset, keys, _count_workers(workers, part), quad, pin_memory)


class _BatchReader(Dataset[Batch | DataError]):
    """A dataset of whole batches, so that a worker knows the keys of what it puts together."""

    def __init__(self, dataset: DetectionDataset, quad: bool) -> None:
        self.dataset = dataset
        self.quad = quad

    def __getitem__(self, keys: Sequence[SampleKey]) -> Batch | DataError:
        try:
            if self.quad:
                return self._quads(keys)
            images = make_room(len(keys), *self.dataset.input_hw(keys[0].image_index))
            rooms = images.numpy()
            items = [self.dataset.sample(key, room) for key, room in zip(keys, rooms, strict=True)]
        except DataError as error:  # raised here it would arrive with the worker's traceback in its message
            return error
        return collate(items, images)

    def _quads(self, keys: Sequence[SampleKey]) -> Batch:
        first = keys[0]
        rng = generator(self.dataset.seed, first.epoch, first.image_index, first.repeat, _QUAD)
        items = [self.dataset[key] for key in keys]
        return collate(
            [make_quad(items[i : i + QUAD], rng.random() < 0.5) for i in range(0, len(items), QUAD)]
        )


def _refuse_weights(dataset: DetectionDataset) -> None:
    images = dataset.image_files
    if isinstance(images, ShardTable) and images.remote:
        raise ConfigError("--image-weights draws images from all shards at once; copy them to a disk first")


def _checked(weights: np.ndarray | None, images: int) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, np.float64)
    if weights.shape != (images,) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(f"image weights: expected {images} numbers from 0 on, not all 0")
    return weights


def _count_workers(wanted: int, batch_size: int) -> int:
    cores = usable_cores() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) or 1  # other processes have theirs
    return max(min(cores, batch_size if batch_size > 1 else 0, wanted), 0)


def _delivered(batch: Batch | DataError) -> Batch:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _unchanged(batch: Any) -> Any:
    return batch


def _set_up_worker(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which then ends us
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # not the script's handler, which a fork brings along
    cv2.setNumThreads(0)  # the workers are the threads
    keep_freed_memory()


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Hold Ctrl-C back while workers start: until `_set_up_worker` runs it would show their tracebacks.

    They inherit the mask; the main process gets the signal when the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
