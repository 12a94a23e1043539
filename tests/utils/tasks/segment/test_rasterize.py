"""True masks drawn from polygons: pixels, order and maps of the original; polygons of any shape and place."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tests.known import arrays, golden
from tests.utils.tasks.segment.golden_masks import bits
from utils.tasks.segment.rasterize import MaskFormat, draw_polygon

KNOWN: dict[str, dict[str, Any]] = golden("14_segment_masks")["polygons"]
CASES = [name for name in KNOWN if name.startswith("poly")]
SQUARE = np.array([(2, 2), (8, 2), (8, 8), (2, 8)], np.float32)


def polygons(name: str) -> list[np.ndarray]:
    stored = arrays("14_segment_masks")
    return [stored[f"{name}/points{index}"] for index in range(8)]


@pytest.mark.parametrize("name", CASES)
def test_single_masks_equal_the_original(name: str) -> None:
    known, given = KNOWN[name], polygons(name)
    masks, order = MaskFormat(known["ratio"], overlap=False).draw(given, known["hw"])
    assert (masks == bits(arrays("14_segment_masks")[f"{name}/single"], (8, *known["mask_hw"]))).all()
    assert (masks.dtype, order.tolist()) == (np.uint8, list(range(8)))
    assert masks.sum((1, 2)).tolist() == known["areas"]


@pytest.mark.parametrize("name", CASES)
def test_maps_and_the_order_of_labels_equal_the_original(name: str) -> None:
    known, given = KNOWN[name], polygons(name)
    (packed,), order = MaskFormat(known["ratio"], overlap=True).draw(given, known["hw"])
    assert packed.dtype == known["packed_dtype"]
    areas = np.array(known["areas"])
    assert areas[order].tolist() == areas[known["order"]].tolist()
    # Where areas are equal, the original's order is not defined; ours is that of the labels.
    assert order.tolist() == sorted(range(8), key=lambda i: (areas[i] > 0, -areas[i], i))
    if order.tolist() == known["order"]:
        assert (packed == arrays("14_segment_masks")[f"{name}/packed"]).all()
        assert np.unique(packed).tolist() == known["values"]


def test_edges_belong_to_the_mask() -> None:
    known = KNOWN["square_2_to_8"]
    (mask,), _ = MaskFormat(1, overlap=False).draw([SQUARE], (20, 20))
    assert mask.sum() == known["pixels"]
    assert np.flatnonzero(mask.any(1)).tolist() == known["rows"]


def drawn_whole(points: np.ndarray, height: int, width: int, ratio: int, least: float) -> np.ndarray:
    """Fill a polygon in a whole image, and shrink it."""
    canvas = np.zeros((height, width), np.uint8)
    cv2.fillPoly(canvas, [points.astype(np.int32)], 1)
    size = width // ratio, height // ratio
    if least == 0.5:
        return (cv2.resize(canvas, size) if ratio > 1 else canvas).astype(bool)
    return cv2.resize(canvas.astype(np.float32), size) >= least if ratio > 1 else canvas.astype(bool)


@pytest.mark.parametrize("least", [0.5, 0.51])
@pytest.mark.parametrize(("height", "width"), [(64, 96), (67, 90)])
@pytest.mark.parametrize("ratio", [1, 2, 3, 4, 8])
def test_drawing_the_surroundings_only_changes_no_pixel(
    ratio: int, height: int, width: int, least: float
) -> None:
    rng = np.random.default_rng(ratio)
    for reach in (10.0, 40.0, 150.0):  # small, large, and mostly outside of the image
        for _ in range(20):
            centre = rng.uniform(-20, 110, 2)
            points = (centre + rng.uniform(-reach, reach, (int(rng.integers(3, 9)), 2))).astype(np.float32)
            part = draw_polygon(points, (height, width), ratio, least)
            mask = np.zeros((height // ratio, width // ratio), bool)
            h, w = part.pixels.shape
            mask[part.row : part.row + h, part.column : part.column + w] = part.pixels
            assert (mask == drawn_whole(points, height, width, ratio, least)).all()


@pytest.mark.parametrize(
    ("points", "pixels"),
    [
        ([(5, 7)] * 3, [(7, 5)]),  # all points are equal
        ([(5, 7), (5.9, 7.2), (5.4, 7.9)], [(7, 5)]),  # smaller than a pixel
        ([(2, 3), (6, 3), (4, 3)], [(3, x) for x in range(2, 7)]),  # on a line
        ([(3, 2), (3, 5), (3, 2)], [(y, 3) for y in range(2, 6)]),
        ([(4, 4)], [(4, 4)]),
        (np.zeros((0, 2)), []),
        ([(-9, -9), (-3, -9), (-3, -3)], []),
        ([(30, 30), (40, 30), (40, 40)], []),
        ([(19.9, 15.9), (25, 15.9), (25, 20)], [(15, 19)]),  # touches the last pixel of the image
    ],
)
def test_degenerate_polygons(points: Any, pixels: list[tuple[int, int]]) -> None:
    (mask,), _ = MaskFormat(1, overlap=False).draw([np.array(points, np.float32)], (16, 20))
    assert list(zip(*(axis.tolist() for axis in mask.nonzero()), strict=True)) == sorted(pixels)


def test_objects_too_small_for_a_pixel_are_first_in_the_order() -> None:
    point = np.full((3, 2), 9, np.float32)
    given = [SQUARE, point, SQUARE * 2, point]
    (packed,), order = MaskFormat(4).draw(given, (32, 32))
    assert order.tolist() == [1, 3, 2, 0]
    assert set(np.unique(packed)) == {0, 3, 4}  # the values 1 and 2 of the small objects occur nowhere


def test_small_objects_cover_large_ones() -> None:
    small: np.ndarray = SQUARE / 2 + 4
    orders: list[list[np.ndarray]] = [[SQUARE, small], [small, SQUARE]]
    for given in orders:
        (packed,), order = MaskFormat(1).draw(given, (16, 16))
        large_value, small_value = (int(order.tolist().index(i)) + 1 for i in (0, 1))
        if given[0] is small:
            large_value, small_value = small_value, large_value
        assert (large_value, small_value) == (1, 2)
        assert (packed == 2).sum() == 16 and (packed == 1).sum() == 49 - 16


@pytest.mark.parametrize("count", [255, 256])
def test_a_map_has_room_for_any_number_of_objects(count: int) -> None:
    tiles = [np.array([(x, y)] * 3, np.float32) for y in range(16) for x in range(16)][:count]
    (packed,), order = MaskFormat(1).draw(tiles, (16, 16))
    assert packed.dtype == (np.uint8 if count == 255 else np.int32)
    assert packed.max() == count
    assert (packed.ravel()[:count] == np.argsort(order) + 1).all()


@pytest.mark.parametrize(("overlap", "count"), [(True, 1), (False, 0)])
def test_an_image_without_objects(overlap: bool, count: int) -> None:
    masks, order = MaskFormat(4, overlap).draw([], (32, 64))
    assert masks.shape == (count, 8, 16) and not masks.any() and len(order) == 0


def test_a_pixel_can_need_more_than_half() -> None:
    half = np.array([(0, 0), (63, 0), (63, 1), (0, 1)], np.float32)  # the upper half of rows of 4 pixels
    for least, expected in ((0.5, True), (0.51, False)):
        (mask,), _ = MaskFormat(4, overlap=False, least=least).draw([half], (8, 64))
        assert bool(mask[0].all()) is expected and not mask[1].any()
