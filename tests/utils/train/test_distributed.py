"""Processes of one start find each other, whatever those of an earlier one have left in the store."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from torch.distributed import HashStore, PrefixStore, Store

from utils.base.errors import YoloError
from utils.train.distributed import fresh_store

WORLD = 3


def _fresh_store_all(store: Store) -> list[Store]:
    with ThreadPoolExecutor(WORLD) as pool:
        return list(
            pool.map(lambda rank: fresh_store(store, rank, WORLD, timedelta(seconds=20)), range(WORLD))
        )


def test_each_start_has_a_part_of_the_store_to_itself() -> None:
    store = HashStore()
    for start in range(20):
        parts = _fresh_store_all(store)
        assert not any(part.check(["address"]) for part in parts), "nothing of the start before"
        parts[0].set("address", str(start))
        assert [part.get("address") for part in parts] == [str(start).encode()] * WORLD


def test_one_that_died_before_all_had_met_is_replaced() -> None:
    store = HashStore()
    with pytest.raises(YoloError, match="process 1 of 3 has waited"):
        fresh_store(store, 1, WORLD, timedelta(seconds=0.05))
    parts = _fresh_store_all(store)
    parts[1].set("address", "here")
    assert parts[0].get("address") == b"here" and all(isinstance(part, PrefixStore) for part in parts)
