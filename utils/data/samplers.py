"""Which images make up the batches of an epoch, in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from utils.base.seeds import generator
from utils.data.dataset import PARTNERS, SampleKey

BUFFER = 5000  # images, by default


def shuffled(shard: np.ndarray, buffer: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffle images (N,), given the shard of each.

    Returns:
        Their numbers in the order of the epoch: an image is at most `buffer` places before its turn in the
        stream of shards.
    """
    places = np.empty(shard.max(initial=-1) + 1, np.int64)
    places[rng.permutation(len(places))] = np.arange(len(places))
    stream = np.argsort(places[shard], kind="stable")
    held = stream[:buffer].tolist()
    slots = rng.integers(len(held), size=len(stream) - len(held)).tolist() if held else []
    mixed = []
    for slot, arriving in zip(slots, stream[len(held) :].tolist(), strict=True):
        mixed.append(held[slot])
        held[slot] = arriving
    rest = np.array(held, np.int64)
    rng.shuffle(rest)
    return np.concatenate((np.array(mixed, np.int64), rest))


def neighbours(
    order: np.ndarray, first: int, end: int, count: int, buffer: int, rng: np.random.Generator
) -> np.ndarray:
    """Draw `count` images for each one from place `first` to `end` of an order: (end - first, count).

    They are at most `buffer` places away, so that they come from the same few shards.
    """
    away = rng.integers(-buffer, buffer + 1, size=(end - first, count))
    last = len(order) - 1
    # Beyond an end the way is turned back: the other end's shards are not needed now.
    places = np.abs(np.arange(first, end)[:, None] + away)
    return order[np.where(places > last, 2 * last - places, places).clip(0, last)]


# Streams of random numbers that have nothing to do with those of any sample.
_SHUFFLE, _WEIGHTS, _SHARDS, _NEIGHBOURS = 7919, 7927, 7937, 7949


class Share(NamedTuple):
    """What one of several processes gets: a part of each batch, or every so many-th batch."""

    rank: int = 0
    world: int = 1
    whole_batches: bool = False

    def part_of(self, keys: list[SampleKey]) -> list[SampleKey]:
        """Its part of a batch, at least one image: of a batch that is too small some are seen twice."""
        if self.whole_batches or self.world == 1:
            return keys
        keys = [keys[i % len(keys)] for i in range(max(len(keys), self.world))]
        return keys[self.rank * len(keys) // self.world : (self.rank + 1) * len(keys) // self.world]


class Mix(NamedTuple):
    """How images that lie in shards are shuffled."""

    shard: np.ndarray  # (N,) the one of each image
    buffer: int = BUFFER


class BatchKeys(Sampler[list[SampleKey]]):
    """The keys of the batches of an epoch, made in the main process."""

    def __init__(
        self,
        images: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        drop_last: bool = False,
        weights: np.ndarray | None = None,
        share: Share | None = None,
        mix: Mix | None = None,
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.batches = images // batch_size if drop_last else -(-images // batch_size)
        self.weights = weights
        self.share = share or Share()
        self.mix = mix
        self.epoch = 0
        self.first_batch = 0

    def __len__(self) -> int:
        return len(self.numbers())

    def __iter__(self) -> Iterator[list[SampleKey]]:
        draw = self._in_order() if self.weights is None else self._weighted(self.weights)
        for batch in self.numbers():
            yield self.share.part_of(draw(batch * self.batch_size, (batch + 1) * self.batch_size))

    def numbers(self) -> range:
        """The batches of this process."""
        if self.share.whole_batches:
            return range(self.first_batch + self.share.rank, self.batches, self.share.world)
        return range(self.first_batch, self.batches)

    def order(self) -> np.ndarray:
        """The images (N,) in the order of the epoch, where they are not drawn by weight."""
        if not self.shuffle:
            return np.arange(self.images)
        if self.mix is not None:
            return shuffled(*self.mix, generator(self.seed, _SHARDS, self.epoch))
        numbers = np.arange(self.images)
        generator(self.seed, _SHUFFLE, self.epoch).shuffle(numbers)
        return numbers

    def _in_order(self) -> Callable[[int, int], list[SampleKey]]:
        """What gives the keys from one number to another."""
        numbers, mix, epoch = self.order(), self.mix, self.epoch
        if mix is None:
            return lambda first, end: [SampleKey(epoch, index) for index in numbers[first:end].tolist()]

        def keys(first: int, end: int) -> list[SampleKey]:
            end = min(end, self.images)
            rng = generator(self.seed, _NEIGHBOURS, epoch, first)
            partners = neighbours(numbers, first, end, PARTNERS, mix.buffer, rng).tolist()
            images = numbers[first:end].tolist()
            return [SampleKey(epoch, p, 0, tuple(rest)) for p, rest in zip(images, partners, strict=True)]

        return keys

    def _weighted(self, weights: np.ndarray) -> Callable[[int, int], list[SampleKey]]:
        """Draw images, and those that they are combined with, in proportion to the weights."""
        rng = generator(self.seed, _WEIGHTS, self.epoch)
        drawn = rng.choice(self.images, (self.images, 1 + PARTNERS), p=weights / weights.sum())
        repeats = _times_before(drawn[:, 0])
        epoch = self.epoch

        def keys(first: int, end: int) -> list[SampleKey]:
            rows = zip(drawn[first:end].tolist(), repeats[first:end].tolist(), strict=True)
            return [SampleKey(epoch, index, repeat, tuple(rest)) for (index, *rest), repeat in rows]

        return keys


def _times_before(values: np.ndarray) -> np.ndarray:
    """How often each value (n,) has come before: (3, 5, 3, 3) gives (0, 0, 1, 2)."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    first = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    places = np.arange(len(values))
    times = np.empty(len(values), np.int64)
    times[order] = places - np.maximum.accumulate(np.where(first, places, 0))
    return times
