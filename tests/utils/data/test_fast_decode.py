"""Decoding large JPEGs at a reduced size changes nothing but their pixels."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from tests.known import pattern_image
from utils.base.paths import ROOT
from utils.base.yaml_io import read_yaml
from utils.data.dataset import DetectionDataset
from utils.data.samples import least_shrink

PLAIN = read_yaml(ROOT / "data/hyps/hyp.no-augmentation.yaml")
SIZES = ((400, 600), (600, 400), (129, 140), (90, 100))  # the last two less than twice the 64 or 80 below


def jpeg_set(root: Path, turned: int = 1) -> Path:
    """Write smooth JPEGs of `SIZES`, all with one orientation tag, and their labels."""
    images, labels = root / "images", root / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    exif = Image.Exif()
    exif[0x0112] = turned
    for number, (height, width) in enumerate(SIZES):
        pixels = cv2.GaussianBlur(pattern_image(height, width, 40 * number), (0, 0), 9)
        Image.fromarray(pixels).save(images / f"{number}.jpg", exif=exif, quality=95)
        (labels / f"{number}.txt").write_text("1 0.3 0.7 0.2 0.25\n")
    return images


def opened(images: Path, size: int, fast: bool, cache: str | None = None) -> DetectionDataset:
    return DetectionDataset([images], size, augment=True, hyp=PLAIN, cache=cache, fast_decode=fast)


def test_an_image_is_never_decoded_smaller_than_needed() -> None:
    assert [least_shrink(side, 640) for side in (600, 1279, 1280, 2559, 2560, 5119, 5120, 99999)] == [
        1, 1, 2, 2, 4, 4, 8, 8,
    ]  # fmt: skip


@pytest.mark.parametrize("turned", [1, 6])
def test_labels_and_shapes_are_the_same_and_pixels_are_similar(tmp_path: Path, turned: int) -> None:
    images = jpeg_set(tmp_path, turned)
    fast, whole = opened(images, 64, True), opened(images, 64, False)
    for index in range(len(SIZES)):
        one, other = fast[index], whole[index]
        assert one.shapes == other.shapes
        assert torch.equal(one.labels, other.labels)
        assert one.image.shape == other.image.shape
        assert (one.image.int() - other.image.int()).abs().float().mean() < 3
    assert not torch.equal(fast[0].image, whole[0].image)


def test_small_images_are_equal_bit_by_bit(tmp_path: Path) -> None:
    images = jpeg_set(tmp_path)
    fast, whole = opened(images, 80, True), opened(images, 80, False)
    assert [torch.equal(fast[i].image, whole[i].image) for i in range(4)] == [False, False, True, True]


def test_images_are_decoded_in_full_by_default(tmp_path: Path) -> None:
    images = jpeg_set(tmp_path)
    validated, fast = DetectionDataset([images], 64), opened(images, 64, True)
    assert not validated._reader.fast_decode
    assert not torch.equal(validated[0].image, fast[0].image)


@pytest.mark.parametrize("cache", ["ram", "disk"])
def test_caches_distinguish_the_two(tmp_path: Path, own_cache_folder: Path, cache: str) -> None:
    images = jpeg_set(tmp_path)
    expected = {}
    for fast in (True, False):
        bare = opened(images, 64, fast)
        bare._reader._cache = None
        expected[fast] = bare[0].image
    for fast in (True, False, True):  # on disk, each finds the files of the one before
        data = opened(images, 64, fast, cache)
        assert torch.equal(data[0].image, expected[fast])
        assert torch.equal(data[0].image, expected[fast])
    assert len(list(own_cache_folder.rglob("*.npy"))) == (2 if cache == "disk" else 0)


def test_a_replaced_file_is_read_in_full(tmp_path: Path) -> None:
    images = jpeg_set(tmp_path)
    fast = opened(images, 64, True)
    other = pattern_image(300, 300)
    (images / "0.jpg").write_bytes(cv2.imencode(".jpg", other)[1].tobytes())
    shapes = fast[0].shapes
    assert shapes is not None and shapes[0] == (300, 300)


def test_a_jpeg_may_be_replaced_by_another_format(tmp_path: Path) -> None:
    images = jpeg_set(tmp_path)
    fast, whole = opened(images, 64, True), opened(images, 64, False)
    pixels = np.ascontiguousarray(pattern_image(*SIZES[0]))
    (images / "0.jpg").write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
    assert fast[0].shapes == whole[0].shapes
    assert torch.equal(fast[0].image, whole[0].image)
