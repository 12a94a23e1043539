"""Masks as the polygon of their largest part, and as COCO's run-length text."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from tests.known import golden
from utils.tasks.segment.polygons import decode_rle, encode_rle, mask_contours, mask_polygon

RLE: list[dict[str, Any]] = golden("14_segment_predict")["rle"]["masks"]


def image_of(*rows: str) -> np.ndarray:
    return np.array([[int(pixel) for pixel in row] for row in rows], np.uint8)


@pytest.mark.parametrize("known", RLE, ids=lambda known: "x".join(map(str, known["size"])))
def test_run_length_text_equals_that_of_coco(known: dict[str, Any]) -> None:
    mask = image_of(*known["rows"])
    assert encode_rle(mask) == {"size": known["size"], "counts": known["counts"]}
    assert (decode_rle({"size": known["size"], "counts": known["counts"]}) == mask).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (37, 53), (300, 7), (700, 900)])
@pytest.mark.parametrize("filled", [0.0, 0.002, 0.5, 1.0])
def test_any_mask_survives_the_run_length_text(shape: tuple[int, int], filled: float) -> None:
    mask = np.random.default_rng(0).random(shape) < filled
    rle = encode_rle(mask)
    assert rle["size"] == list(shape) and isinstance(rle["counts"], str)
    assert (decode_rle(rle) == mask).all()


def test_run_lengths_may_be_numbers() -> None:
    mask = decode_rle({"size": [2, 3], "counts": [1, 2, 3]})
    assert mask.tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "counts of 3 pixels for a mask of 2x3"),
        ([9, -3], "counts of 6 pixels"),
        ("3~", "'~' is not part"),
        ("32", "counts of 5 pixels"),
    ],
)
def test_run_lengths_of_another_size_are_an_error(counts: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_rle({"size": [2, 3], "counts": counts})


def test_the_largest_part_comes_first_though_another_has_more_points() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[2:30, 2:40] = 1  # a rectangle: 4 points
    mask[40:42, 10:50] = mask[42:50, 10:50:4] = 1  # a comb: many points, a small area
    contours = mask_contours(mask)
    assert len(contours) == 2 and len(contours[0]) == 4 < len(contours[1])
    polygon = mask_polygon(mask)
    assert polygon.dtype == np.float32
    assert sorted(map(tuple, polygon.tolist())) == [(2, 2), (2, 29), (39, 2), (39, 29)]


def test_a_polygon_without_holes_gives_its_mask_again() -> None:
    mask = np.zeros((80, 90), np.uint8)
    cv2.circle(mask, (40, 30), 25, 1, cv2.FILLED)
    cv2.fillPoly(mask, [np.array([(50, 40), (85, 45), (60, 75)])], 1)
    again = np.zeros_like(mask)
    cv2.fillPoly(again, [mask_polygon(mask).astype(np.int32)], 1)
    assert (again == mask).all()
    mask[25:35, 35:45] = 0  # a hole is not part of the ring
    assert (mask_polygon(mask) == mask_polygon(again)).all()


def test_a_mask_may_be_bool_or_not_contiguous() -> None:
    mask = np.zeros((20, 30), bool)
    mask[4:9, 5:25] = True
    expected = mask_polygon(mask.astype(np.uint8))
    assert (mask_polygon(mask) == expected).all()
    assert (mask_polygon(np.repeat(mask, 2, 1)[:, ::2]) == expected).all()


@pytest.mark.parametrize(
    ("rows", "points"),
    [
        (("000", "000"), 0),
        (("000", "010"), 1),
        (("000", "111"), 2),
        (("111", "111"), 4),
    ],
)
def test_tiny_masks(rows: tuple[str, ...], points: int) -> None:
    assert mask_polygon(image_of(*rows)).shape == (points, 2)
