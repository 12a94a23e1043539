"""Samples of class folders: any kind of image, reproducible augmentations, and caches that change nothing."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.known import pattern_image
from tests.utils.tasks.classify.folders import make_folders, write
from utils.base.errors import DataError
from utils.data.class_folders import load_class_files
from utils.data.dataset import SampleKey
from utils.data.loader import Batch, make_loader
from utils.tasks.classify.dataset import ClassificationDataset
from utils.tasks.classify.transforms import AREA, center_crop

NAMES = {0: "cat", 1: "dog", 2: "owl"}
HYP = {"scale": AREA[0], "fliplr": 0.5, "flipud": 0.0, "jitter": 0.4}


@pytest.fixture
def split(tmp_path: Path) -> Path:
    return make_folders(tmp_path / "set", train={"cat": 4, "dog": 3, "owl": 2}) / "train"


def open_split(
    split: Path, imgsz: int, names: dict[int, str], *, prefix: str = "", **settings: Any
) -> ClassificationDataset:
    return ClassificationDataset(
        load_class_files(split, names, prefix=prefix), imgsz, prefix=prefix, **settings
    )


def pixels_of(item: Any) -> np.ndarray:
    """Return the image (H, W, 3) BGR of an item."""
    pixels: np.ndarray = item.image.numpy()[::-1].transpose(1, 2, 0)
    return pixels


def test_samples_of_evaluation_are_centre_crops_with_a_class(split: Path) -> None:
    data = open_split(split, 16, NAMES)
    assert len(data) == 9 and data.numbers.tolist() == [0] * 4 + [1] * 3 + [2] * 2
    assert data.input_hw(3) == (16, 16) and not data.rect and data.masks is None
    for index, path in enumerate(data.image_files):
        item = data[index]
        assert item.image.dtype == torch.uint8 and item.image.shape == (3, 16, 16)
        assert item.labels.tolist() == [[0, data.numbers[index]]] and item.path == str(path)
        assert np.array_equal(pixels_of(item), center_crop(cv2.imread(str(path)), 16))


def test_batches_have_rows_of_index_and_class(split: Path) -> None:
    data = open_split(split, 16, NAMES)
    with closing(make_loader(data, 4, workers=0)) as loader:
        batches = list(loader)
    assert [len(batch.images) for batch in batches] == [4, 4, 1]
    assert batches[0].targets.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]
    assert batches[1].targets.tolist() == [[0, 1], [1, 1], [2, 1], [3, 2]]
    assert batches[2].targets.tolist() == [[0, 2]] and batches[2].masks is None


def test_augmented_samples_depend_on_seed_epoch_and_index_only(split: Path) -> None:
    one = open_split(split, 16, NAMES, hyp=HYP, seed=3)
    other = open_split(split, 16, NAMES, hyp=HYP, seed=3)
    forward = [one[SampleKey(2, index)].image for index in range(9)]
    backward = [other[SampleKey(2, index)].image for index in reversed(range(9))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    seeded = open_split(split, 16, NAMES, hyp=HYP, seed=4)
    for changed in (one[SampleKey(3, 0)], one[SampleKey(2, 0, repeat=1)], seeded[SampleKey(2, 0)]):
        assert not torch.equal(changed.image, forward[0])
    assert torch.equal(one[0].image, one[SampleKey(0, 0)].image)


def batches_with(split: Path, workers: int, monkeypatch: pytest.MonkeyPatch) -> list[Batch]:

    monkeypatch.setattr("utils.data.loader_workers.usable_cores", lambda: 4)
    data = open_split(split, 16, NAMES, hyp=HYP, seed=1, batch_size=4)
    with closing(make_loader(data, 4, workers=workers, shuffle=True, seed=1)) as loader:
        found = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            found += list(loader)
    return found


def test_the_number_of_workers_changes_nothing(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    none, two = (batches_with(split, workers, monkeypatch) for workers in (0, 2))
    for a, b in zip(none, two, strict=True):
        assert torch.equal(a.images, b.images) and torch.equal(a.targets, b.targets) and a.paths == b.paths


@pytest.mark.parametrize("hyp", [None, HYP], ids=["evaluation", "training"])
def test_caches_give_equal_images(split: Path, hyp: dict[str, float] | None) -> None:
    plain = open_split(split, 16, NAMES, hyp=hyp)
    expected = [[plain[SampleKey(epoch, index)].image for index in range(9)] for epoch in range(2)]
    for cache in ("ram", "disk"):
        data = open_split(split, 16, NAMES, hyp=hyp, cache=cache)
        for epoch in range(2):  # the second epoch is read from the cache
            for index in range(9):
                assert torch.equal(data[SampleKey(epoch, index)].image, expected[epoch][index])


def test_cached_images_are_not_read_again(split: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_split(split, 16, NAMES, hyp=HYP, cache="ram")
    first = [data[index].image for index in range(9)]
    monkeypatch.setattr(type(data.image_files), "read_image", lambda self, index: pytest.fail("read again"))
    assert all(torch.equal(data[index].image, first[index]) for index in range(9))


def test_the_disk_cache_of_another_size_is_not_used(split: Path) -> None:
    for size in (16, 24):
        data = open_split(split, size, NAMES, cache="disk")
        for _ in range(2):
            assert data[0].image.shape == (3, size, size)


def save_kinds(folder: Path) -> dict[str, np.ndarray]:
    """Write an image of each unusual kind; return what it should look like, (H, W, 3) BGR."""
    image = pattern_image(40, 60)
    gray, rgb = image[..., 0], np.ascontiguousarray(image[..., ::-1])
    folder.mkdir(parents=True)
    write(folder / "gray.png", gray)
    write(folder / "deep.png", gray.astype(np.uint16) * 256)
    write(folder / "alpha.png", np.dstack((image, gray)))
    Image.fromarray(rgb).convert("CMYK").save(folder / "cmyk.jpg", quality=100)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(rgb).save(folder / "turned.jpg", quality=100, exif=exif)
    Image.fromarray(rgb).save(folder / "photo.webp", lossless=True)
    Image.fromarray(rgb).quantize(256).save(folder / "palette.png")
    repeated = np.repeat(gray[..., None], 3, 2)
    return {
        "gray.png": repeated, "deep.png": repeated, "alpha.png": image, "cmyk.jpg": image,
        "turned.jpg": np.rot90(image, -1), "photo.webp": image, "palette.png": image,
    }  # fmt: skip


def test_any_kind_of_image_becomes_8_bit_colour(tmp_path: Path) -> None:
    expected = save_kinds(tmp_path / "val/cat")
    data = open_split(tmp_path / "val", 32, {0: "cat"})
    assert len(data) == len(expected)
    for index, path in enumerate(data.image_files):
        name = Path(str(path)).name
        gap = np.abs(pixels_of(data[index]).astype(int) - center_crop(expected[name], 32))
        # CMYK goes through another colour space, and a palette has 256 colours.
        assert gap.mean() < (12 if name in ("cmyk.jpg", "palette.png") else 3), name
        assert tuple(data.shapes[index]) == expected[name].shape[1::-1]
    augmented = open_split(tmp_path / "val", 32, {0: "cat"}, hyp=HYP)
    assert all(augmented[index].image.shape == (3, 32, 32) for index in range(len(expected)))


def test_corrupt_images_are_skipped_with_a_warning(split: Path, caplog: pytest.LogCaptureFixture) -> None:
    (split / "cat/0.png").write_bytes(b"")
    (split / "dog/1.png").write_bytes(b"GIF89a, but not really")
    whole = (split / "owl/0.png").read_bytes()
    (split / "owl/0.png").write_bytes(whole[: len(whole) // 2])
    data = open_split(split, 16, NAMES, hyp=HYP, prefix="train: ")
    assert len(data) == 6 and data.numbers.tolist() == [0, 0, 0, 1, 1, 2]
    for name in ("cat/0.png", "dog/1.png", "owl/0.png"):
        assert str(split / name) in caplog.text
    assert "3 images and 0 label lines are skipped in total" in caplog.text


def test_only_corrupt_images_are_an_error(split: Path) -> None:
    for path in split.rglob("*.png"):
        path.write_bytes(b"none")
    with pytest.raises(DataError, match="none of the 9 images can be used"):
        open_split(split, 16, NAMES)


def test_an_image_that_disappears_is_replaced_with_the_class_of_the_next(
    split: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = open_split(split, 16, NAMES)
    (split / "cat/3.png").unlink()
    item = data[3]
    assert item.path == str(split / "dog/0.png") and item.labels.tolist() == [[0, 1]]
    assert "the next image is used instead" in caplog.text


@pytest.mark.parametrize("side", [1, 7, 100])
def test_any_size_of_input_is_made(split: Path, side: int) -> None:
    for hyp in (None, HYP):
        assert open_split(split, side, NAMES, hyp=hyp)[0].image.shape == (3, side, side)


def test_an_image_of_one_pixel_is_enlarged(tmp_path: Path) -> None:
    write(tmp_path / "val/cat/dot.png", np.full((1, 1, 3), (1, 2, 3), np.uint8))
    data = open_split(tmp_path / "val", 8, {0: "cat"})
    assert (pixels_of(data[0]) == (1, 2, 3)).all()
