import os
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.image_files import make_set
from utils.base.log import LOG
from utils.data import image_cache
from utils.data.dataset import DetectionDataset
from utils.data.image_cache import DiskCache, RamCache, available_memory, make_cache
from utils.data.image_lists import list_images

SHAPES = np.array([(4, 6), (5, 3)])


def make_image(index: int, value: int) -> np.ndarray:
    return np.full((*SHAPES[index], 3), value, np.uint8)


def test_the_ram_cache_returns_what_was_put_in() -> None:
    cache = RamCache(SHAPES)
    assert cache.get(0) is cache.get(1) is None
    cache.put(1, make_image(1, 7))
    assert cache.get(0) is None
    found = cache.get(1)
    assert found is not None
    assert (found == 7).all()
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0, 0] = 1


def test_an_image_of_another_shape_is_not_cached() -> None:
    cache = RamCache(SHAPES)
    cache.put(0, make_image(1, 7))
    assert cache.get(0) is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_forked_processes_share_the_memory() -> None:
    cache = RamCache(SHAPES)
    child = os.fork()
    if child == 0:
        cache.put(0, make_image(0, 9))
        os._exit(0)
    os.waitpid(child, 0)
    found = cache.get(0)
    assert found is not None
    assert (found == 9).all()


def test_the_disk_cache_is_outside_of_the_dataset_and_notices_changed_images(
    tmp_path: Path, own_cache_folder: Path
) -> None:
    images = make_set(tmp_path, 2)
    before = sorted(tmp_path.rglob("*"))
    data = DetectionDataset([images], 64, cache="disk")
    first = data[0].image
    (kept,) = own_cache_folder.rglob("*.npy")
    assert np.load(kept).shape == (48, 64, 3)  # resized, not the original
    assert [path for path in sorted(tmp_path.rglob("*")) if path.suffix != ".npz"] == before

    (images / "000.png").write_bytes((images / "001.png").read_bytes())
    os.utime(images / "000.png", ns=(1, 1))
    changed = DetectionDataset([images], 64, cache="disk")[0].image
    assert (changed != first).any()


def test_damaged_files_of_the_disk_cache_are_replaced(tmp_path: Path, own_cache_folder: Path) -> None:
    images = make_set(tmp_path, 1)
    first = DetectionDataset([images], 64, cache="disk")[0].image
    (kept,) = own_cache_folder.rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:50])
    assert (DetectionDataset([images], 64, cache="disk")[0].image == first).all()
    assert np.load(kept).shape == (48, 64, 3)


def test_images_resized_in_another_way_are_not_used(tmp_path: Path) -> None:
    images = list_images([make_set(tmp_path, 1)])
    DiskCache(images, "64 1", tmp_path / "cache").put(0, make_image(0, 3))
    assert DiskCache(images, "64 1", tmp_path / "cache").get(0) is not None
    assert DiskCache(images, "64 3", tmp_path / "cache").get(0) is None


def test_small_datasets_are_cached_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_cache, "available_memory", lambda: 10_000)
    assert isinstance(make_cache(None, [], SHAPES, ""), RamCache)
    assert make_cache(None, [], SHAPES * 4, "") is None


def test_the_ram_cache_is_not_used_without_enough_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LOG, "propagate", True)
    monkeypatch.setattr(image_cache, "available_memory", lambda: 100)
    assert make_cache("ram", [], SHAPES, "") is None
    assert "--cache ram" in caplog.messages[0]


def test_available_memory_is_plausible() -> None:
    free = available_memory()
    assert free is None or 2**20 < free < 2**50
