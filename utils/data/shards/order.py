"""The order of an epoch over shards: shards at random, their pictures one after another, mixed in a buffer.

It is a function of seed and epoch alone, and each picture's neighbours in it come from few shards. So batches
are the same for any number of processes and workers, a run can go on anywhere within an epoch, and yet only
some shards are in use at a time. The buffer holds numbers, not pictures.
"""

from __future__ import annotations

import numpy as np

BUFFER = 5000  # pictures, by default


def shuffled(shard: np.ndarray, buffer: int, rng: np.random.Generator) -> np.ndarray:
    """Shuffle pictures (N,), given the shard of each.

    Returns:
        Their numbers in the order of the epoch: a picture is at most `buffer` places before its turn in the
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
    """Draw `count` pictures for each one from place `first` to `end` of an order: (end - first, count).

    They are at most `buffer` places away, so that they come from the same few shards.
    """
    away = rng.integers(-buffer, buffer + 1, size=(end - first, count))
    last = len(order) - 1
    # Beyond an end the way is turned back: the other end's shards are not needed now.
    places = np.abs(np.arange(first, end)[:, None] + away)
    return order[np.where(places > last, 2 * last - places, places).clip(0, last)]
