import os
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.utils.data.image_files import make_set
from utils.base.errors import ConfigError, DataError
from utils.base.yaml_io import read_yaml
from utils.data.dataset import DetectionDataset, Item
from utils.data.loader import Batch, Loader, make_loader, make_quad
from utils.data.samplers import BatchKeys

ROOT = Path(__file__).parents[3]
HYP = read_yaml(ROOT / "data/hyps/hyp.scratch-med.yaml")


def train_set(root: Path, count: int = 7) -> DetectionDataset:
    images = root / "images/train"
    return DetectionDataset(
        [images if images.is_dir() else make_set(root, count)], 64, augment=True, hyp=HYP, seed=3
    )


def epochs(loader: Loader, *numbers: int) -> list[Batch]:
    batches = []
    for number in numbers:
        loader.set_epoch(number)
        batches += list(loader)
    loader.close()
    return batches


def assert_equal(one: list[Batch], other: list[Batch]) -> None:
    assert [batch.paths for batch in one] == [batch.paths for batch in other]
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.images, b.images)
        assert torch.equal(a.targets, b.targets)


def test_batches_contain_every_image_once_and_number_their_labels(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path, 7)], 64)
    batches = list(make_loader(data, 3, workers=0, shuffle=True))
    assert [batch.images.shape for batch in batches] == [(3, 3, 64, 64), (3, 3, 64, 64), (1, 3, 64, 64)]
    assert batches[0].images.dtype == torch.uint8
    assert batches[0].targets.dtype == torch.float32
    assert batches[0].targets[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    assert len({path for batch in batches for path in batch.paths}) == 7
    assert all(shapes is not None and shapes[0] == (60, 80) for batch in batches for shapes in batch.shapes)


@pytest.mark.parametrize("mode", [{}, {"quad": True}, {"image_weights": np.arange(1.0, 8)}])
def test_batches_do_not_depend_on_the_number_of_workers(tmp_path: Path, mode: dict[str, Any]) -> None:
    without, with_workers = (
        epochs(make_loader(train_set(tmp_path), 4, workers=n, shuffle=True, seed=3, **mode), 0, 1)
        for n in (0, 2)
    )
    assert_equal(without, with_workers)


def test_spawned_workers_make_the_same_batches(tmp_path: Path) -> None:
    """Spawned workers share nothing with the main process, as on Windows and macOS."""
    loader = make_loader(train_set(tmp_path), 4, workers=1)
    if loader.workers == 0:
        pytest.skip("one core")
    assert loader._loader is not None
    loader._loader.multiprocessing_context = "spawn"
    assert_equal(epochs(loader, 1), epochs(make_loader(train_set(tmp_path), 4, workers=0), 1))


def test_order_depends_on_seed_and_epoch_only(tmp_path: Path) -> None:
    def order(seed: int, epoch: int) -> list[int]:
        keys = BatchKeys(50, 8, shuffle=True, seed=seed)
        keys.epoch = epoch
        return [key.image_index for batch in keys for key in batch]

    assert order(0, 3) == order(0, 3)
    assert sorted(order(0, 3)) == list(range(50))
    assert order(0, 3) != order(0, 4)
    assert order(0, 3) != order(1, 3)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_resumed(tmp_path: Path, workers: int) -> None:
    whole = epochs(make_loader(train_set(tmp_path), 2, workers=0, shuffle=True), 5)
    loader = make_loader(train_set(tmp_path), 2, workers=workers, shuffle=True)
    list(loader)
    loader.set_epoch(5, first_batch=2)
    rest = list(loader)
    assert len(loader) == len(whole) == 4
    assert_equal(rest, whole[2:])
    loader.set_epoch(5)
    assert_equal(list(loader), whole)
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_be_left_early(tmp_path: Path, workers: int) -> None:
    loader = make_loader(train_set(tmp_path), 2, workers=workers)
    next(iter(loader))
    loader.set_epoch(1)
    assert_equal(epochs(loader, 1), epochs(make_loader(train_set(tmp_path), 2, workers=0), 1))


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_of_workers_are_raised_unchanged(tmp_path: Path, workers: int) -> None:
    data = train_set(tmp_path, 2)
    for path in data.image_files:
        path.unlink()
    with pytest.raises(DataError) as caught:
        next(iter(make_loader(data, 2, workers=workers)))
    assert str(caught.value).endswith("none of the 2 images can be read any more")


def test_images_are_drawn_in_proportion_to_weights(tmp_path: Path) -> None:
    data = train_set(tmp_path)
    loader = make_loader(data, 4, workers=0, image_weights=np.array([0, 0, 1, 0, 3.0, 0, 0]))
    counts: Counter[int] = Counter()
    for epoch in range(60):
        loader.keys.epoch = epoch
        keys = [key for batch in loader.keys for key in batch]
        assert {partner for key in keys for partner in key.partners} <= {2, 4}
        assert len(set(keys)) == len(keys)  # an image shown again is augmented again
        counts.update(key.image_index for key in keys)
    assert set(counts) == {2, 4}
    assert 2.2 < counts[4] / counts[2] < 4
    loader.set_weights(np.array([0, 1.0, 0, 0, 0, 0, 0]))
    assert {path for batch in loader for path in batch.paths} == {str(data.image_files[1])}
    loader.set_weights(None)
    assert len({path for batch in loader for path in batch.paths}) == 7


def test_rectangular_batches_are_not_shuffled(tmp_path: Path) -> None:
    images = make_set(tmp_path, 5, sizes=((60, 80), (80, 60), (30, 90)))
    data = DetectionDataset([images], 64, batch_size=2, rect=True)
    assert data.batch_shapes is not None
    batches = list(make_loader(data, 2, workers=0, shuffle=True))
    assert [path for batch in batches for path in batch.paths] == list(map(str, data.image_files))
    assert [list(batch.images.shape[2:]) for batch in batches] == data.batch_shapes.tolist()
    with pytest.raises(ConfigError, match="rectangular"):
        make_loader(data, 4)


def test_a_rectangular_batch_may_be_larger_than_the_set(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path, 3)], 64, batch_size=16, rect=True)
    assert len(list(make_loader(data, 3, workers=0))) == 1


def test_quads_tile_four_images_or_enlarge_one() -> None:
    items = [
        Item(
            torch.full((3, 8, 6), i, dtype=torch.uint8),
            torch.tensor([[0, i, 0.5, 0.5, 0.2, 0.4]]),
            str(i),
            None,
        )
        for i in range(4)
    ]
    tiled = make_quad(items, enlarge=False)
    assert tiled.image.shape == (3, 16, 12)
    for row in tiled.labels:
        x, y = int(row[2] * 12), int(row[3] * 16)
        assert tiled.image[0, y, x] == row[1]
    assert tiled.image[0, 12, 2] == 1  # the second is below the first
    torch.testing.assert_close(tiled.labels[:, 4:], torch.tensor([[0.1, 0.2]]).repeat(4, 1))
    enlarged = make_quad(items[2:] + items[:2], enlarge=True)
    assert (enlarged.image == 2).all()
    assert enlarged.labels.tolist() == items[2].labels.tolist()


def test_quad_batches_have_a_quarter_of_the_images(tmp_path: Path) -> None:
    batches = epochs(make_loader(train_set(tmp_path, 9), 4, workers=0, quad=True), 0)
    assert [batch.images.shape for batch in batches] == [(1, 3, 128, 128)] * 2
    with pytest.raises(ConfigError, match="multiple of 4"):
        make_loader(train_set(tmp_path), 6, quad=True)
    with pytest.raises(ConfigError, match="do not fill a batch"):
        make_loader(train_set(tmp_path), 16, quad=True)


@pytest.mark.parametrize(("batch_size", "wanted", "most"), [(1, 8, 0), (2, 8, 2), (16, 0, 0), (16, 1, 1)])
def test_the_number_of_workers_is_limited(tmp_path: Path, batch_size: int, wanted: int, most: int) -> None:
    assert make_loader(train_set(tmp_path), batch_size, workers=wanted).workers <= most


def test_ctrl_c_ends_quietly(tmp_path: Path) -> None:
    make_set(tmp_path)
    script = f"""
        import sys, time
        from pathlib import Path
        from utils.base.script import main
        from utils.data.dataset import DetectionDataset
        from utils.data.loader import make_loader

        def run():
            data = DetectionDataset([Path({str(tmp_path)!r}) / "images/train"], 64)
            batches = iter(make_loader(data, 2, workers=2))
            next(batches)
            print("ready", flush=True)
            time.sleep(20)

        main(run)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        assert process.poll() is None
    time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors.splitlines() == ["WARNING: stopped by Ctrl-C"]
