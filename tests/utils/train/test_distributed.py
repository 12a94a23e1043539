"""Ranks agree on a fresh key prefix, whatever earlier processes have left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore, PrefixStore, Store

from utils.base.errors import YoloError
from utils.train.distributed import fresh_store

WORLD = 3


def _join_all(store: Store) -> list[Store]:
    def join(rank: int) -> Store:
        return fresh_store(store, rank, WORLD, timedelta(seconds=20))

    with ThreadPoolExecutor(WORLD) as pool:
        return list(pool.map(join, range(WORLD)))


def test_each_start_uses_its_own_keys() -> None:
    store = HashStore()
    for start in range(20):
        parts = _join_all(store)
        assert not any(part.check(["address"]) for part in parts), "keys of the previous start are visible"
        parts[0].set("address", str(start))
        assert [part.get("address") for part in parts] == [str(start).encode()] * WORLD


def test_a_process_that_died_before_all_joined_is_replaced() -> None:
    store = HashStore()
    with pytest.raises(YoloError, match="process 1 of 3 waited"):
        fresh_store(store, 1, WORLD, timedelta(seconds=0.05))
    parts = _join_all(store)
    parts[1].set("address", "here")
    assert parts[0].get("address") == b"here" and all(isinstance(part, PrefixStore) for part in parts)
