"""Load batches with worker processes; the batches are the same for any number of workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, get_worker_info

from utils.base.errors import ConfigError, DataError
from utils.base.seeds import generator
from utils.data.dataset import Item, MaskFormat, SampleKey, Shapes
from utils.data.loader_workers import batches_of, count_workers, set_up_worker
from utils.data.packed import PackedImages, PackedRows
from utils.data.samplers import BUFFER, BatchKeys, ShardShuffle, Share
from utils.data.shards.prefetch_shards import ShardPrefetcher
from utils.data.shards.table import ShardTable

QUAD = 4  # images that one image of a quad batch is made of
_QUAD_STREAM = 7933  # stream of random numbers, independent of those of the samples


class Samples(Protocol):
    """A dataset of any task, as `make_loader` uses it: `DetectionDataset`, `ClassificationDataset`.

    `labels` has a row for each object, class first; of a whole image for classification.
    """

    imgsz: int
    batch_size: int
    seed: int
    image_files: PackedImages
    labels: PackedRows
    shapes: np.ndarray  # (N, 2) width and height
    content: str  # digest of the files

    @property
    def rect(self) -> bool:
        """Whether batches have shapes of their own."""

    @property
    def masks(self) -> MaskFormat | None:
        """How samples hold masks, if they do."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __getitem__(self, key: Any) -> Item:
        """Return the sample of a key."""

    def input_hw(self, image_index: int) -> tuple[int, int]:
        """Return the input size (height, width) of an image."""

    def sample(self, key: SampleKey, out: np.ndarray) -> Item:
        """Make the sample of a key; its image is written to `out` (3, *input_hw) uint8."""


class Batch(NamedTuple):
    """B images for the network, and their labels."""

    images: Tensor  # (B, 3, H, W) uint8 RGB
    targets: Tensor  # (T, 6) float32: index in the batch, class, xywhn; for classification (B, 2)
    paths: list[str]
    shapes: list[Shapes | None]  # None for mosaics
    masks: Tensor | None = None  # for tasks with masks: (B, h, w) maps, or (T, h, w), one for each target
    overlap: bool = True  # whether the masks are maps

    @property
    def labels(self) -> tuple[Tensor, ...]:
        """What a loss compares the output of the model with."""
        return (self.targets,) if self.masks is None else (self.targets, self.masks)

    def masks_of(self, index: int) -> Tensor:
        """Return the masks of the objects of one image, (m, h, w) bool in the order of its targets."""
        assert self.masks is not None, "the loader of a segmentation model gives masks"
        rows = (self.targets[:, 0] == index).nonzero()[:, 0]
        if not self.overlap:
            return self.masks[rows] > 0
        numbers = torch.arange(1, len(rows) + 1, dtype=self.masks.dtype)
        return self.masks[index] == numbers[:, None, None]


def make_loader(
    dataset: Samples,
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
        dataset: the images.
        batch_size: images per batch; the last batch may have fewer.
        workers: maximum number of processes; at most one per core, none for batches of one image.
        shuffle: use another order in each epoch. Rectangular batches keep theirs.
        seed: seed of the order.
        quad: batches have a quarter of the images, twice as large: four in one, or one enlarged.
        image_weights: (N,) draw images in proportion to these; None shows each image once.
        pin_memory: put batches in page-locked memory, for faster copies to a GPU.
        share: part of the batches that this process makes, of several in a distributed run.
        buffer: size of the shuffle buffer for images in shards.

    Raises:
        ConfigError: settings that cannot be combined.
    """
    share = share or Share()
    own_size = batch_size if share.whole_batches else batch_size // share.world
    weights = _check_weights(image_weights, dataset)
    _check_batch_size(dataset, batch_size, own_size, quad, weights)
    images = dataset.image_files
    shards = ShardShuffle(images.shard, buffer) if isinstance(images, ShardTable) else None
    order = shuffle and not dataset.rect
    keys = BatchKeys(len(dataset), batch_size, order, seed, quad, weights, share, shards)
    if not keys.batches:
        raise ConfigError(f"--quad: {len(dataset)} images do not fill a batch of {batch_size}")
    return Loader(dataset, keys, count_workers(workers, own_size), quad, pin_memory)


class Loader:
    """Iterable over the batches of an epoch; `set_epoch` chooses the epoch.

    `len()` is the number of batches of a whole epoch, also when an iteration resumes within it.
    """

    def __init__(self, dataset: Samples, keys: BatchKeys, workers: int, quad: bool, pin_memory: bool) -> None:
        self.dataset = dataset
        self.keys = keys
        self.workers = workers
        self._loader: DataLoader[Batch | DataError] | None = DataLoader(
            _BatchReader(dataset, quad),
            batch_size=None,  # the reader makes whole batches
            sampler=keys,
            num_workers=workers,
            collate_fn=_identity,
            pin_memory=pin_memory,
            worker_init_fn=set_up_worker if workers else None,
            persistent_workers=workers > 0,
            # Forked workers share the image cache and start at once; other systems spawn.
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        )

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Set the epoch: its order and augmentations depend on the seed and its number only."""
        self.keys.epoch = epoch
        self.keys.first_batch = first_batch

    def set_weights(self, image_weights: np.ndarray | None) -> None:
        """Draw images in proportion to weights (N,) from the next iteration on; None shows each once.

        Raises:
            ConfigError: the images are in remote shards.
        """
        self.keys.weights = _check_weights(image_weights, self.dataset)

    def set_share(self, share: Share) -> None:
        """Change the part of the batches that this process makes, from the next iteration on."""
        self.keys.share = share

    def __len__(self) -> int:
        return self.keys.batches

    def __iter__(self) -> Iterator[Batch]:
        if self._loader is None:
            raise RuntimeError("the loader is closed")
        images = self.dataset.image_files
        if isinstance(images, ShardTable) and images.remote:
            return self._prefetched(self._loader, images)
        return self._batches(self._loader)

    def _batches(self, loader: DataLoader[Batch | DataError]) -> Iterator[Batch]:
        for batch in batches_of(loader):
            yield _raise_error(batch)

    def _prefetched(self, loader: DataLoader[Batch | DataError], images: ShardTable) -> Iterator[Batch]:
        """Yield the batches, while a process downloads the shards that come next."""
        numbers, shards, size = self.keys.batch_numbers(), self.keys.shard_shuffle, self.keys.batch_size
        reach = shards.buffer if shards is not None and self.keys.shuffle else 0
        prefetcher = ShardPrefetcher(images, self.keys.order(), numbers.start * size, reach)
        try:
            for number, batch in zip(numbers, self._batches(loader), strict=True):
                prefetcher.advance(number * size)
                yield batch
        finally:
            prefetcher.close()

    def close(self) -> None:
        """End the worker processes now: an iterator that an exception refers to is collected late."""
        loader, self._loader = self._loader, None
        iterator = getattr(loader, "_iterator", None)
        # An iterator whose start has failed lacks attributes that its own cleanup needs.
        if self.workers and iterator is not None and hasattr(iterator, "_workers_status"):
            iterator._shutdown_workers()


class _BatchReader(Dataset[Batch | DataError]):
    """A dataset whose items are whole batches."""

    def __init__(self, dataset: Samples, quad: bool) -> None:
        self.dataset = dataset
        self.quad = quad

    def __getitem__(self, keys: Sequence[SampleKey]) -> Batch | DataError:
        try:
            if self.quad:
                return self._quads(keys)
            images = _empty_images(len(keys), *self.dataset.input_hw(keys[0].image_index))
            items = [self.dataset.sample(key, out) for key, out in zip(keys, images.numpy(), strict=True)]
        except DataError as error:  # if raised here, its message would contain the worker's traceback
            return error
        masks = self.dataset.masks
        return collate(items, images, masks is None or masks.overlap)

    def _quads(self, keys: Sequence[SampleKey]) -> Batch:
        first = keys[0]
        rng = generator(self.dataset.seed, first.epoch, first.image_index, first.repeat, _QUAD_STREAM)
        items = [self.dataset[key] for key in keys]
        return collate(
            [make_quad(items[i : i + QUAD], rng.random() < 0.5) for i in range(0, len(items), QUAD)]
        )


def _empty_images(batch_size: int, height: int, width: int) -> Tensor:
    """Allocate (batch_size, 3, height, width) uint8; in a worker in memory shared with the main process."""
    shape = (batch_size, 3, height, width)
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared = torch.UntypedStorage._new_shared(batch_size * 3 * height * width)  # as torch's default collate
    return torch.empty(0, dtype=torch.uint8).set_(shared).view(shape)


def collate(items: Sequence[Item], images: Tensor | None = None, overlap: bool = True) -> Batch:
    """Set the image index of the labels; stack the images, unless `images` contains them already."""
    for index, item in enumerate(items):
        item.labels[:, 0] = index
    if images is None:
        # numpy copies in this thread; torch would start others, and wait for them if cores are busy
        images = torch.from_numpy(np.stack([item.image.numpy() for item in items]))
    return Batch(
        images,
        torch.cat([item.labels for item in items]),
        [item.path for item in items],
        [item.shapes for item in items],
        _join_masks([item.masks for item in items]),
        overlap,
    )


def _join_masks(masks: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate the masks of all items; maps of several integer types become the larger one."""
    drawn = [each for each in masks if each is not None]
    return torch.cat(drawn) if drawn else None


def make_quad(items: Sequence[Item], enlarge: bool) -> Item:
    """Make one image of twice the size: the first of four enlarged, or all four in a square.

    In the square the second image is below the first, the third to the right of it.
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


def _check_weights(weights: np.ndarray | None, dataset: Samples) -> np.ndarray | None:
    if weights is None:
        return None
    if isinstance(dataset.image_files, ShardTable) and dataset.image_files.remote:
        raise ConfigError("--image-weights draws images from all shards at once; copy them to a disk first")
    weights = np.asarray(weights, np.float64)
    if weights.shape != (len(dataset),) or not (weights >= 0).all() or not 0 < weights.sum() < np.inf:
        raise ValueError(f"image weights: expected {len(dataset)} numbers of at least 0, not all 0")
    return weights


def _check_batch_size(
    dataset: Samples, batch_size: int, own_size: int, quad: bool, weights: np.ndarray | None
) -> None:
    planned, wanted = (min(size, len(dataset)) for size in (dataset.batch_size, batch_size))
    if dataset.rect and (planned != wanted or quad or weights is not None):
        raise ConfigError("rectangular batches keep their images together: no --quad, no --image-weights")
    if quad and dataset.masks is not None:
        raise ConfigError("--quad joins images without their masks: leave it out for segmentation")
    if quad and own_size % QUAD:
        raise ConfigError(f"--quad: each process needs a multiple of {QUAD} images a batch, not {own_size}")


def _raise_error(batch: Batch | DataError) -> Batch:
    if isinstance(batch, DataError):
        raise batch
    return batch


def _identity(batch: Any) -> Any:
    return batch
