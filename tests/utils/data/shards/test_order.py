import numpy as np

from utils.base.seeds import generator
from utils.data.samplers import BatchKeys, ShardShuffle, draw_neighbours, shuffle_shards

SHARD = np.repeat(np.arange(20), 50)


def test_each_image_comes_once_and_few_shards_are_in_use() -> None:
    order = shuffle_shards(SHARD, 100, generator(0))
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert max(len(set(SHARD[order[i : i + 50]])) for i in range(950)) <= 12
    assert not np.array_equal(np.sort(order[:100]), np.arange(100)), "shards are in another order"
    assert not np.array_equal(order, shuffle_shards(SHARD, 100, generator(1)))


def test_a_buffer_larger_than_the_set_mixes_all() -> None:
    order = shuffle_shards(SHARD, 5000, generator(0))
    assert np.array_equal(np.sort(order), np.arange(1000))
    assert len(set(SHARD[order[:50]])) > 12
    assert len(shuffle_shards(np.zeros(0, int), 5, generator(0))) == 0


def test_a_buffer_mixes_well_within_its_reach() -> None:
    orders = [shuffle_shards(SHARD, 200, generator(seed)) for seed in range(50)]
    positions = np.concatenate([np.argsort(order)[::50] for order in orders])
    assert abs(positions.mean() - 499.5) < 30, "no shard is preferred"


def test_neighbours_are_near() -> None:
    order = shuffle_shards(SHARD, 100, generator(0))
    found = draw_neighbours(order, 10, 14, 7, 30, generator(1))
    assert found.shape == (4, 7)
    position = np.argsort(order)
    away = (position[found] - np.arange(10, 14)[:, None] + 500) % 1000 - 500
    assert np.abs(away).max() <= 30 and len(np.unique(away)) > 15


def test_keys_are_the_same_from_any_batch_on() -> None:
    keys = BatchKeys(1000, 16, shuffle=True, seed=5, shard_shuffle=ShardShuffle(SHARD, 100))
    keys.epoch = 3
    whole = list(keys)
    keys.first_batch = 40
    assert list(keys) == whole[40:]
    assert sorted(key.image_index for batch in whole for key in batch) == list(range(1000))
    assert all(len(key.partners) == 7 for batch in whole for key in batch)
