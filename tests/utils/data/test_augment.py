from typing import Any

import numpy as np
import pytest

from tests.known import arrays, golden, pattern_image
from tests.utils.data.image_files import assert_same_image, golden_pattern
from utils.data.augment import (
    adjust_hsv,
    copy_paste,
    draw_flips,
    draw_hsv_gains,
    draw_pastes,
    flip,
    mixup,
)
from utils.data.samples import Sample

GOLDEN, ARRAYS = golden("12_augment"), arrays("12_augment")
NO_BOXES = np.zeros((0, 5), np.float32)


@pytest.mark.parametrize("case", GOLDEN["augment_hsv"], ids=lambda case: case["image"])
def test_hsv_equals_the_original(case: dict[str, Any]) -> None:
    image = golden_pattern(case["image"])
    before = image.copy()
    assert_same_image(adjust_hsv(image, np.array(case["gains_r"])), case["output"], off=3)
    assert (image == before).all()


def test_hsv_gains_stay_in_their_ranges() -> None:
    rng, hyp = np.random.default_rng(0), {"hsv_h": 0.015, "hsv_s": 0.7, "hsv_v": 0.4}
    gains = np.stack([draw_hsv_gains(rng, hyp) for _ in range(1000)])
    np.testing.assert_allclose(gains.max(0), [1.015, 1.7, 1.4], rtol=0.02)
    np.testing.assert_allclose(gains.min(0), [0.985, 0.3, 0.6], rtol=0.05)


def test_mixup_equals_the_original() -> None:
    (case,) = GOLDEN["mixup"]
    one, other = (Sample(golden_pattern(name), np.ones((n, 5))) for n, name in enumerate(case["images"], 1))
    blend = mixup(one, other, case["r"])
    assert len(blend.boxes) == case["labels_out_rows"]
    assert_same_image(blend.image, case["output"], off=3)


def test_copy_paste_equals_the_original() -> None:
    (case,) = GOLDEN["copy_paste"]
    polygons = list(ARRAYS["copy_paste/segments"])
    sample = Sample(golden_pattern(case["image"]), ARRAYS["copy_paste/labels_in"], polygons)
    pasted = copy_paste(sample, case["selected"])
    np.testing.assert_allclose(pasted.boxes, ARRAYS["copy_paste/labels_out"], atol=1e-3)
    assert len(pasted.polygons) == case["n_segments_out"]
    assert_same_image(pasted.image, case["output"], off=3)


def test_objects_without_a_polygon_are_not_pasted() -> None:
    boxes = np.array([[0, 1, 1, 9, 9], [1, 2, 20, 12, 30]], np.float32)
    polygon = np.array([[2, 20], [12, 20], [12, 30]], np.float32)
    sample = Sample(pattern_image(40, 60), boxes, [np.zeros((0, 2), np.float32), polygon])
    pasted = copy_paste(sample, [0, 1])
    assert pasted.boxes[:, 0].tolist() == [0, 1, 1]
    assert [len(points) for points in pasted.polygons] == [0, 3, 3]


def test_the_given_fraction_of_objects_is_pasted() -> None:
    chosen = draw_pastes(np.random.default_rng(0), 10, 0.4)
    assert len(set(chosen)) == 4


def test_flipping_twice_restores_the_image() -> None:
    image, labels = pattern_image(20, 30), np.array([[1, 0.2, 0.3, 0.1, 0.2]], np.float32)
    once = flip(image, labels, up_down=True, left_right=True)
    np.testing.assert_allclose(labels, [[1, 0.8, 0.7, 0.1, 0.2]])
    assert (once == image[::-1, ::-1]).all()
    assert (flip(once, labels, up_down=True, left_right=True) == image).all()


def test_flips_have_their_probability() -> None:
    rng = np.random.default_rng(0)
    flips = np.array([draw_flips(rng, {"flipud": 0.1, "fliplr": 0.5}) for _ in range(4000)])
    np.testing.assert_allclose(flips.mean(0), [0.1, 0.5], atol=0.03)
