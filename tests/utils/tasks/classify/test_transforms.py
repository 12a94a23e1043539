"""The transforms of classification: those of evaluation equal the original's, and those of training."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.known import SHARED, golden, needs_shared, pattern_image, to_tensor
from utils.augmentations import CenterCrop, ToTensor, classify_transforms
from utils.augmentations import denormalize as denormalize_in_place
from utils.base.seeds import generator
from utils.tasks.classify.transforms import (
    AREA,
    ASPECT,
    Crop,
    augment,
    center_crop,
    denormalize,
    draw_crop,
    jitter_colors,
    normalize,
)

KNOWN: dict[str, Any] = golden("15_classify_transforms")
CASES: list[dict[str, Any]] = KNOWN["cases"]
NAMES = [*dict.fromkeys(case["image"] for case in CASES)]  # the k of a pattern is its number here, from 1
PATTERNS = [case for case in CASES if case["image"].startswith("pattern")]
PHOTOS = [case for case in CASES if not case["image"].startswith("pattern")]
SAME_OPENCV = int(cv2.__version__.split(".")[0]) == 5  # its resizing is exact from version to version
HYP = {"scale": AREA[0], "fliplr": 0.5, "flipud": 0.0, "jitter": 0.4}


def name_of(case: dict[str, Any]) -> str:
    return f"{case['image']}-{case['size']}"


def image_of(case: dict[str, Any]) -> np.ndarray:
    if found := re.fullmatch(r"pattern_(\d+)x(\d+)", case["image"]):
        image = pattern_image(int(found[1]), int(found[2]), NAMES.index(case["image"]) + 1)
    else:
        image = cv2.imread(str(SHARED / f"data/{case['image']}.jpg"))
    assert list(image.shape[:2]) == case["hw"]
    return image


def assert_equals_the_original(case: dict[str, Any]) -> None:
    size = case["size"]
    crop = center_crop(image_of(case), size)
    assert crop.shape == (size, size, 3) and crop.dtype == np.uint8
    digest = hashlib.sha256(crop.tobytes()).hexdigest()
    assert digest == case["crop_sha256"] or not SAME_OPENCV
    for y, x, *bgr in case["crop_samples_y_x_bgr"]:
        assert np.abs(crop[y, x].astype(int) - bgr).max() <= 2
    assert crop.mean() == pytest.approx(case["crop_mean"], abs=1e-6 if SAME_OPENCV else 0.1)

    tensor = normalize(to_tensor(crop[None]))[0]
    # Two grey levels are 0.035 after normalization, where OpenCV is another one.
    rel, gap = (1e-6, 1e-6) if SAME_OPENCV else (0, 0.036)
    assert str(tensor.dtype) == case["tensor_dtype"] and list(tensor.shape) == case["tensor"]["shape"]
    stats = [tensor.mean(), tensor.std(), tensor.abs().mean(), tensor.min(), tensor.max()]
    expected = [case["tensor"][key] for key in ("mean", "std", "absmean", "min", "max")]
    np.testing.assert_allclose([float(value) for value in stats], expected, rtol=1e-5, atol=gap)
    np.testing.assert_allclose(tensor.mean((1, 2)), case["channel_mean"], rtol=1e-5, atol=gap)
    for y, x, *rgb in case["tensor_samples_y_x_rgb"]:
        np.testing.assert_allclose(tensor[:, y, x], rgb, rtol=rel, atol=gap)

    own = classify_transforms(size)(image_of(case))  # by the names of the original's module
    torch.testing.assert_close(own, tensor, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", PATTERNS, ids=name_of)
def test_evaluation_equals_the_original(case: dict[str, Any]) -> None:
    assert_equals_the_original(case)


@needs_shared
@pytest.mark.parametrize("case", PHOTOS, ids=name_of)
def test_evaluation_of_photos_equals_the_original(case: dict[str, Any]) -> None:
    assert_equals_the_original(case)


def test_the_original_names_take_what_they_took() -> None:
    known = KNOWN["center_crop_tuple_h_w"]
    assert list(CenterCrop(tuple(known["size"]))(pattern_image(40, 50)).shape) == known["shape"]
    image = np.array(KNOWN["to_tensor"]["in_bgr"], np.uint8)
    expected = torch.tensor(KNOWN["to_tensor"]["out_rgb"])
    torch.testing.assert_close(ToTensor()(image), expected, rtol=0, atol=1e-6)
    assert ToTensor(half=True)(image).dtype == torch.float16
    with pytest.raises(AssertionError, match="one number of pixels"):
        classify_transforms((20, 30))  # type: ignore[arg-type]


def test_denormalize_equals_the_original_and_undoes_normalize() -> None:
    known = KNOWN["denormalize"]
    x, expected = torch.tensor(known["in"]), torch.tensor(known["out"])
    torch.testing.assert_close(denormalize(x), expected, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(normalize(expected.clone()), x, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(denormalize_in_place(x.clone()), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(50, 50), (40, 300), (301, 33), (1, 1), (2, 1000), (480, 640)])
def test_crops_are_inside_the_image_with_their_area_and_aspect(height: int, width: int) -> None:
    for index in range(300):
        crop = draw_crop(generator(0, index), height, width)
        assert 0 <= crop.top <= crop.top + crop.height <= height and crop.height > 0
        assert 0 <= crop.left <= crop.left + crop.width <= width and crop.width > 0
        if min(height, width) < 40:
            continue  # sides are rounded to whole pixels, which is much of a small image
        area = crop.width * crop.height / (height * width)
        wide = max(width, height) / min(width, height) > 3
        assert area <= 1.02 and (wide or area >= AREA[0] * 0.9)
        rounding = 1 + 1.5 / min(crop.width, crop.height)
        assert ASPECT[0] / rounding <= crop.width / crop.height <= ASPECT[1] * rounding


def test_crops_are_spread_over_image_and_area() -> None:
    crops = np.array([draw_crop(generator(0, index), 200, 200) for index in range(2000)])
    areas = crops[:, 2] * crops[:, 3] / 200**2
    # Uniform in 0.08-1, but for those large ones that do not fit in the image with their aspect ratio.
    assert np.mean(areas < 0.5) == pytest.approx(0.46 / 0.92, abs=0.06)
    small = crops[areas < 0.3]
    centres = (small[:, :2] + small[:, 2:] / 2) / 200
    assert np.abs(centres.mean(0) - 0.5).max() < 0.02
    assert centres.min() < 0.2 and centres.max() > 0.8


def test_an_image_into_which_no_crop_fits_gives_its_centre() -> None:
    # At least 90 % of such a long image has an aspect ratio far from 4 to 3.
    crop = draw_crop(generator(0), 30, 900, (0.9, 1.0))
    assert crop == Crop(0, 430, 30, 40)
    assert draw_crop(generator(0), 900, 30, (0.9, 1.0)) == Crop(430, 0, 40, 30)


@pytest.mark.parametrize("shape", [(40, 60), (61, 33), (1, 1), (3, 500)])
def test_an_augmented_image_has_the_size_and_type_of_the_input(shape: tuple[int, int]) -> None:
    image = pattern_image(*shape)
    before = image.copy()
    for index in range(30):
        made = augment(generator(0, index), image, 24, HYP)
        assert made.shape == (24, 24, 3) and made.dtype == np.uint8
    assert np.array_equal(image, before), "images of the cache are not changed"


def test_without_augmentations_the_image_is_only_resized() -> None:
    plain = {"scale": 1.0, "fliplr": 0.0, "flipud": 0.0, "jitter": 0.0}
    image = pattern_image(48, 48)
    for index in range(20):
        crop = draw_crop(generator(1, index), 48, 48, (1.0, 1.0))
        part = image[crop.top : crop.top + crop.height, crop.left : crop.left + crop.width]
        expected = cv2.resize(part, (20, 20), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(augment(generator(1, index), image, 20, plain), expected)


@pytest.mark.parametrize(("flag", "axis"), [("fliplr", 1), ("flipud", 0)])
def test_flips_have_their_probability(flag: str, axis: int) -> None:
    plain = {"scale": 1.0, "fliplr": 0.0, "flipud": 0.0, "jitter": 0.0}
    image = pattern_image(32, 32)
    for index in range(20):
        same = augment(generator(2, index), image, 32, plain)
        turned = augment(generator(2, index), image, 32, plain | {flag: 1.0})
        assert np.array_equal(turned, np.flip(same, axis))
    made = [augment(generator(2, index), image, 32, plain | {flag: 0.5}) for index in range(200)]
    kept = [augment(generator(2, index), image, 32, plain) for index in range(200)]
    share = np.mean([np.array_equal(a, b) for a, b in zip(made, kept, strict=True)])
    assert share == pytest.approx(0.5, abs=0.12)


def test_colours_change_in_half_of_the_images_within_the_strength() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)  # grey, so that only the brightness changes it
    values = []
    for index in range(300):
        made = jitter_colors(generator(3, index), image, 0.4)
        assert made.dtype == np.uint8 and made.shape == image.shape
        values.append(int(made[0, 0, 0]))
    assert min(values) >= 60 and max(values) <= 140
    assert min(values) < 66 and max(values) > 134
    assert np.mean(np.array(values) == 100) == pytest.approx(0.5, abs=0.1)
    assert (image == 100).all()


def test_no_strength_means_no_change_of_colours() -> None:
    image = pattern_image(20, 20)
    assert all(np.array_equal(jitter_colors(generator(4, i), image, 0.0), image) for i in range(10))


def test_contrast_keeps_the_mean_and_saturation_the_grey_levels() -> None:
    from utils.tasks.classify import transforms

    image = (pattern_image(32, 32) // 2 + 60).astype(np.uint8)
    gray = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY).astype(float)
    for factor in (0.6, 0.8, 1.2):
        levels = cv2.cvtColor(transforms._contrast(image, factor), cv2.COLOR_BGR2GRAY).astype(float)
        assert levels.mean() == pytest.approx(gray.mean(), abs=1)
        assert levels.std() == pytest.approx(gray.std() * factor, rel=0.05)
        coloured = transforms._saturation(image, factor)
        assert np.abs(cv2.cvtColor(coloured, cv2.COLOR_BGR2GRAY) - gray).max() <= 2
        assert coloured.std(2).mean() == pytest.approx(image.std(2).mean() * factor, rel=0.1)
    for change in (transforms._brightness, transforms._contrast, transforms._saturation):
        assert np.abs(change(image, 1.0).astype(int) - image).max() <= 1
        assert change(image, 1.4).dtype == np.uint8
