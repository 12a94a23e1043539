"""Choose the images of each batch: in order, shuffled, by weight, or in a shuffle buffer over shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from utils.base.seeds import generator
from utils.data.dataset import PARTNERS, SampleKey

BUFFER = 5000  # images in the shuffle buffer by default
# Streams of random numbers, independent of each other and of those of the samples.
_SHUFFLE, _WEIGHTS, _SHARDS, _NEIGHBOURS = 7919, 7927, 7937, 7949


class Share(NamedTuple):
    """The part of the batches that one of `world` processes makes."""

    rank: int = 0
    world: int = 1
    whole_batches: bool = False  # every `world`-th batch, instead of a part of each batch

    def part_of(self, keys: list[SampleKey]) -> list[SampleKey]:
        """Return this process's part of a batch, at least one sample: small batches repeat some."""
        if self.whole_batches or self.world == 1:
            return keys
        keys = [keys[i % len(keys)] for i in range(max(len(keys), self.world))]
        return keys[self.rank * len(keys) // self.world : (self.rank + 1) * len(keys) // self.world]


class ShardShuffle(NamedTuple):
    """Settings for shuffling images that are stored in shards."""

    shard: np.ndarray  # (N,) shard of each image
    buffer: int = BUFFER  # images in the shuffle buffer


class BatchKeys(Sampler[list[SampleKey]]):
    """Sampler of the batches of an epoch, as lists of sample keys; it runs in the main process.

    Args:
        images: number of images.
        batch_size: images per batch of all processes together.
        shuffle: use another order in each epoch.
        seed: seed of the order.
        drop_last: leave out a last batch that is not full.
        weights: (N,) draw images in proportion to these, instead of showing each once.
        share: the part of this process.
        shard_shuffle: set for images in shards.
    """

    def __init__(
        self,
        images: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        weights: np.ndarray | None = None,
        share: Share | None = None,
        shard_shuffle: ShardShuffle | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.batches = images // batch_size if drop_last else -(-images // batch_size)
        self.weights = weights
        self.share = share or Share()
        self.shard_shuffle = shard_shuffle
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        return len(self.batch_numbers())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        keys = self._ordered_keys() if self.weights is None else self._weighted_keys(self.weights)
        for batch in self.batch_numbers():
            yield self.share.part_of(keys(batch * self.batch_size, (batch + 1) * self.batch_size))

    def batch_numbers(self) -> range:
        """Return the numbers of the batches that this process makes."""
        if self.share.whole_batches:
            return range(self.first_batch + self.share.rank, self.batches, self.share.world)
        return range(self.first_batch, self.batches)

    def order(self) -> np.ndarray:
        """Return the images (N,) in the order of the epoch; not used for weighted sampling."""
        if not self.shuffle:
            return np.arange(self.images)
        if self.shard_shuffle is not None:
            return shuffle_shards(*self.shard_shuffle, generator(self.seed, _SHARDS, self.epoch))
        order = np.arange(self.images)
        generator(self.seed, _SHUFFLE, self.epoch).shuffle(order)
        return order

    def _ordered_keys(self) -> Callable[[int, int], list[SampleKey]]:
        """Return a function that gives the keys from one position of the epoch to another."""
        order, shards, epoch = self.order(), self.shard_shuffle, self.epoch
        if shards is None:
            return lambda first, end: [SampleKey(epoch, index) for index in order[first:end].tolist()]

        def keys(first: int, end: int) -> list[SampleKey]:
            end = min(end, self.images)
            rng = generator(self.seed, _NEIGHBOURS, epoch, first)
            partners = draw_neighbours(order, first, end, PARTNERS, shards.buffer, rng).tolist()
            images = order[first:end].tolist()
            return [
                SampleKey(epoch, index, 0, tuple(rest)) for index, rest in zip(images, partners, strict=True)
            ]

        return keys

    def _weighted_keys(self, weights: np.ndarray) -> Callable[[int, int], list[SampleKey]]:
        """Draw images, and those that they are combined with, in proportion to the weights."""
        rng = generator(self.seed, _WEIGHTS, self.epoch)
        drawn = rng.choice(self.images, (self.images, 1 + PARTNERS), p=weights / weights.sum())
        repeats = count_before(drawn[:, 0])
        epoch = self.epoch

        def keys(first: int, end: int) -> list[SampleKey]:
            rows = zip(drawn[first:end].tolist(), repeats[first:end].tolist(), strict=True)
            return [SampleKey(epoch, index, repeat, tuple(rest)) for (index, *rest), repeat in rows]

        return keys


def shuffle_shards(shard: np.ndarray, buffer: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffle shards, then their images in a shuffle buffer.

    Args:
        shard: (N,) shard of each image.
        buffer: size of the shuffle buffer: an image comes at most this many positions before its position
            in the stream of shards.
        rng: random generator.

    Returns:
        (N,) image indices in the order of the epoch.
    """
    position = np.empty(shard.max(initial=-1) + 1, np.int64)  # of each shard
    position[rng.permutation(len(position))] = np.arange(len(position))
    stream = np.argsort(position[shard], kind="stable")
    held = stream[:buffer].tolist()
    slots = rng.integers(len(held), size=len(stream) - len(held)).tolist() if held else []
    mixed = []
    for slot, arriving in zip(slots, stream[len(held) :].tolist(), strict=True):
        mixed.append(held[slot])
        held[slot] = arriving
    rest = np.array(held, np.int64)
    rng.shuffle(rest)
    return np.concatenate((np.array(mixed, np.int64), rest))


def draw_neighbours(
    order: np.ndarray, first: int, end: int, count: int, buffer: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `count` images for each position from `first` to `end` of an order: (end - first, count).

    They are at most `buffer` positions away, so that they come from the same few shards.
    """
    away = rng.integers(-buffer, buffer + 1, size=(end - first, count))
    last = len(order) - 1
    # Positions beyond an end are mirrored: wrapping around would need shards from the other end.
    positions = np.abs(np.arange(first, end)[:, None] + away)
    return order[np.where(positions > last, 2 * last - positions, positions).clip(0, last)]


def count_before(values: np.ndarray) -> np.ndarray:
    """Count how often each value (n,) occurs before its position: (3, 5, 3, 3) gives (0, 0, 1, 2)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    is_first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    positions = np.arange(len(values))
    counts = np.empty(len(values), np.int64)
    counts[order] = positions - np.maximum.accumulate(np.where(is_first, positions, 0))
    return counts
