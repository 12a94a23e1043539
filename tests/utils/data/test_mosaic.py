from typing import Any

import numpy as np
import pytest

from tests.known import arrays, golden, pattern_image
from tests.utils.data.image_files import assert_same_image, golden_pattern
from utils.data.augment import MosaicDraws, mosaic4
from utils.data.perspective import PerspectiveDraws, random_perspective
from utils.data.samples import Sample
from utils.ops.boxes import xywhn2xyxy

GOLDEN, ARRAYS = golden("12_augment"), arrays("12_augment")
SIZES = ((32, 24), (20, 32), (32, 32), (5, 60))


def golden_tile(case: dict[str, Any], number: int) -> Sample:
    labels = ARRAYS[f"{case['case']}/labels{number}_cls_xywhn"].copy()
    height, width = case["tile_hw"][number]
    labels[:, 1:] = xywhn2xyxy(labels[:, 1:], width, height)
    return Sample(golden_pattern(case["tiles"][number]), labels)


@pytest.mark.parametrize("case", GOLDEN["mosaic"], ids=lambda case: case["case"])
def test_mosaic_equals_the_original(case: dict[str, Any]) -> None:
    size = case["img_size"]
    tiles = [golden_tile(case, number) for number in case["tile_order"]]
    mosaic = mosaic4(tiles, (case["yc"], case["xc"]), size)
    result = random_perspective(mosaic, PerspectiveDraws(), (-size // 2, -size // 2))
    np.testing.assert_allclose(result.boxes, ARRAYS[f"{case['case']}/labels_out_cls_xyxy"], atol=1e-3)
    assert_same_image(result.image, case["output"], off=3)


def test_a_mosaic_contains_its_own_image_anywhere_and_its_centre_varies() -> None:
    rng = np.random.default_rng(0)
    draws = [MosaicDraws.draw(rng, index=7, count=9, imgsz=64) for _ in range(500)]
    centres = np.array([draw.centre_yx for draw in draws])
    assert centres.min() == 32
    assert centres.max() == 95
    assert all(7 in draw.indices for draw in draws)
    assert {index for draw in draws for index in draw.indices} == set(range(9))
    positions = [draw.indices.index(7) for draw in draws]
    assert set(positions) == {0, 1, 2, 3}


def test_polygons_move_with_their_tile() -> None:
    polygon = np.array([[0, 0], [10, 0], [10, 10]], np.float32)
    box = np.array([[0, 0, 0, 10, 10]], np.float32)
    image = np.zeros((20, 20, 3), np.uint8)
    plain, with_polygon = Sample(image, box), Sample(image, box, [polygon])
    mosaic = mosaic4([plain, plain, plain, with_polygon], (30, 32), 32)
    assert [len(points) for points in mosaic.polygons] == [0, 0, 0, 3]
    np.testing.assert_allclose(mosaic.polygons[3], polygon + (32, 30))
    np.testing.assert_allclose(mosaic.boxes[3], [0, 32, 30, 42, 40])


@pytest.mark.parametrize("centre", [(10, 50), (32, 32), (60, 5)])
def test_the_visible_part_equals_that_of_the_whole_mosaic(centre: tuple[int, int]) -> None:
    tiles = [Sample(pattern_image(h, w, 9 * h), np.ones((1, 5), np.float32)) for h, w in SIZES]
    whole = mosaic4(tiles, centre, 32)
    for rows in (slice(0, 64), slice(0, 9), slice(20, 40), slice(40, 40)):
        for columns in (slice(0, 64), slice(5, 6), slice(30, 64)):
            part = mosaic4(tiles, centre, 32, (rows, columns))
            assert (part.image[rows, columns] == whole.image[rows, columns]).all()
            assert (part.boxes == whole.boxes).all()
