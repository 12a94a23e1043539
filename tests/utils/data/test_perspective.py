from typing import Any

import numpy as np
import pytest

from tests.known import arrays, golden, pattern_image
from tests.utils.data.image_files import OPENCV_5, assert_same_image, golden_pattern
from utils.data.perspective import (
    PerspectiveDraws,
    bounds_inside,
    box_candidates,
    random_perspective,
    visible_region,
)
from utils.data.samples import Sample

GOLDEN, ARRAYS = golden("12_augment"), arrays("12_augment")


@pytest.mark.parametrize("case", GOLDEN["random_perspective"], ids=lambda case: case["case"])
def test_warp_equals_the_original(case: dict[str, Any]) -> None:
    name = case["case"]
    polygons = [ARRAYS[key] for key in sorted(ARRAYS) if key.startswith(f"{name}/segment")]
    sample = Sample(golden_pattern(case["image"]), ARRAYS[f"{name}/targets_in"], polygons)

    warped = random_perspective(
        sample, PerspectiveDraws(**case["draws"]), tuple(case["params"].get("border", (0, 0)))
    )

    assert_same_image(warped.image, case["output"], off=3)
    np.testing.assert_allclose(warped.boxes, ARRAYS[f"{name}/targets_out"], atol=1e-3)


def test_box_candidates_equal_the_original() -> None:
    case = GOLDEN["box_candidates"]
    before, after = (np.array(case[key]) for key in ("box1_xyxy_rows", "box2_xyxy_rows"))
    assert box_candidates(before, after).tolist() == case["out"]
    assert box_candidates(before, after, min_area=0.01).tolist() == case["area_thr_0_01"]


def test_draws_stay_in_their_ranges() -> None:
    hyp = {"perspective": 0.001, "degrees": 10.0, "scale": 0.5, "shear": 3.0, "translate": 0.1}
    rng = np.random.default_rng(0)
    drawn = np.array([list(vars(PerspectiveDraws.draw(rng, hyp)).values()) for _ in range(2000)])
    centre, reach = np.array([0, 0, 0, 1, 0, 0, 0.5, 0.5]), np.array([0.001, 0.001, 10, 0.5, 3, 3, 0.1, 0.1])
    offsets = (drawn - centre) / reach
    assert (np.abs(offsets) <= 1).all()
    np.testing.assert_allclose(offsets.std(0), 1 / np.sqrt(3), rtol=0.05)  # of uniform draws


def test_an_image_without_objects_is_warped() -> None:
    sample = Sample(pattern_image(40, 60), np.zeros((0, 5), np.float32))
    warped = random_perspective(sample, PerspectiveDraws(scale=0.5))
    assert warped.boxes.shape == (0, 5)
    assert (warped.image[0] == 114).all()


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([(10, 10), (30, 12), (20, 40)], (10, 10, 30, 40)),
        ([(-50, -50), (-20, -50), (-20, -20)], (0, 0, 0, 0)),
        ([(-50, -50), (500, -50), (500, 500), (-50, 500)], (0, 0, 100, 80)),  # it covers the image
        ([(-50, -50), (30, -50), (30, 500), (-50, 500)], (0, 0, 30, 80)),  # the left side of it
        ([(-20, 40), (50, 20), (120, 40), (50, 60)], (0, 20, 100, 60)),
        ([(-10, 70), (20, 100), (-10, 100)], (0, 80, 0, 80)),  # touches one corner
    ],
)
def test_bounds_of_the_visible_part_of_a_polygon(
    points: list[tuple[float, float]], expected: tuple[float, ...]
) -> None:
    found = bounds_inside(np.array(points, float), (80, 100))
    np.testing.assert_allclose(found, expected)


@pytest.mark.skipif(not OPENCV_5, reason="hash of another OpenCV")
def test_default_draws_leave_the_image_unchanged() -> None:
    image = pattern_image(40, 60)
    assert random_perspective(Sample(image, np.zeros((0, 5))), PerspectiveDraws()).image is image


@pytest.mark.parametrize("perspective", [0.0, 0.001])
def test_the_output_depends_on_the_visible_region_only(perspective: float) -> None:
    rng, image = np.random.default_rng(0), pattern_image(120, 120)
    hyp = {"perspective": perspective, "degrees": 40.0, "scale": 0.9, "shear": 20.0, "translate": 0.4}
    left_out = 0
    for _ in range(200):
        draws = PerspectiveDraws.draw(rng, hyp)
        rows, columns = visible_region(draws, (120, 120), (60, 60))
        other = rng.integers(0, 256, image.shape, np.uint8)
        other[rows, columns] = image[rows, columns]
        left_out += (other != image).any()
        one, two = (
            random_perspective(Sample(i, np.zeros((0, 5))), draws, (-30, -30)) for i in (image, other)
        )
        assert (one.image == two.image).all()
    assert (left_out == 0) == (perspective > 0)


def test_all_of_a_flattened_image_counts_as_visible() -> None:
    flat = PerspectiveDraws(shear_x_deg=45, shear_y_deg=45)
    assert visible_region(flat, (40, 60), (40, 60)) == (slice(0, 40), slice(0, 60))
