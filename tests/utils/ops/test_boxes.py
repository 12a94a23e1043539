"""Boxes: the numbers of the original, for arrays and tensors, and what is modified in place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tests.known import arrays, golden
from utils.ops import boxes as ops

GOLDEN = arrays("07_boxes")
KINDS: list[Callable[[np.ndarray], Any]] = [np.copy, torch.tensor]

CONVERSIONS = [
    ("xyxy1", lambda b: ops.xyxy2xywh(b), "xyxy2xywh_of_xyxy1"),
    ("xywh1", lambda b: ops.xywh2xyxy(b), "xyxy1"),
    ("norm_xywh", lambda b: ops.xywhn2xyxy(b, 613, 427, 11, 7.5), "xywhn2xyxy_w613_h427_padw11_padh7.5"),
    ("px_xyxy", lambda b: ops.xyxy2xywhn(b, 640, 480, True, 1e-3), "xyxy2xywhn_w640_h480_clip_eps1e-3"),
    ("px_xyxy", lambda b: ops.xyxy2xywhn(b, 640, 480), "xyxy2xywhn_w640_h480_noclip"),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("given", "convert", "expected"), CONVERSIONS)
def test_conversions_equal_the_original_and_do_not_modify_their_input(
    kind: Callable[[np.ndarray], Any], given: str, convert: Callable[[Any], Any], expected: str
) -> None:
    boxes = kind(GOLDEN[given])
    result = convert(boxes)
    assert type(result) is type(boxes)
    assert result.dtype == boxes.dtype
    np.testing.assert_allclose(np.asarray(result), GOLDEN[expected], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(boxes), GOLDEN[given])


@pytest.mark.parametrize("kind", KINDS)
def test_columns_after_the_fourth_are_kept(kind: Callable[[np.ndarray], Any]) -> None:
    rows = kind(np.array([[[10.0, 20, 4, 6, 0.9, 3]]], np.float32))
    there = ops.xywh2xyxy(rows)
    assert np.asarray(there).tolist() == [[[8, 17, 12, 23, np.float32(0.9), 3]]]
    assert np.asarray(ops.xyxy2xywh(there)).tolist() == np.asarray(rows).tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("convert", [ops.xywh2xyxy, ops.xyxy2xywh, ops.xywhn2xyxy, ops.xyxy2xywhn])
def test_empty_arrays_are_converted_to_empty_arrays(
    kind: Callable[[np.ndarray], Any], convert: Callable[[np.ndarray], np.ndarray]
) -> None:
    assert convert(kind(np.zeros((0, 4), np.float32))).shape == (0, 4)


@pytest.mark.parametrize("kind", KINDS)
def test_clipping_works_in_place(kind: Callable[[np.ndarray], Any]) -> None:
    boxes = kind(GOLDEN["px_xyxy"])
    assert ops.clip_boxes(boxes, (480, 640)) is boxes
    np.testing.assert_allclose(np.asarray(boxes), GOLDEN["clip_boxes_480x640"], atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", golden("07_boxes")["scale_boxes"])
def test_boxes_are_scaled_to_the_image(kind: Callable[[np.ndarray], Any], case: dict[str, Any]) -> None:
    rows = kind(np.concatenate((GOLDEN["px_xyxy"], np.full((12, 2), -7, np.float32)), 1))
    assert ops.scale_boxes(case["img1_shape"], rows, case["img0_shape"], case["ratio_pad"]) is rows
    np.testing.assert_allclose(np.asarray(rows)[:, :4], case["out"], rtol=1e-5, atol=1e-4)
    assert (np.asarray(rows)[:, 4:] == -7).all()


def test_polygons_equal_the_original() -> None:
    known = golden("07_boxes")["segments"]
    points = np.array(known["segment_norm"], np.float32)
    pixels = ops.xyn2xy(points, 200, 100, 3, 4)
    np.testing.assert_allclose(pixels, known["xyn2xy_w200_h100_padw3_padh4"], rtol=1e-5)
    box = ops.segment2box(ops.xyn2xy(points, 200, 100), 200, 100)
    np.testing.assert_allclose(box, known["segment2box_200x100"], rtol=1e-5)
    np.testing.assert_allclose(ops.segments2boxes([points])[0], known["segments2boxes"][0], rtol=1e-5)
    np.testing.assert_allclose(ops.resample_segments([points], 10)[0], known["resample_n10"], rtol=1e-5)
    input_points = points * np.float32(640)
    for normalize, key in ((False, "640x640_to_480x600"), (True, "normalized")):
        scaled = ops.scale_segments((640, 640), input_points, (480, 600), normalize=normalize)
        np.testing.assert_allclose(scaled, known[f"scale_segments_{key}"], rtol=1e-4, atol=1e-4)


def test_resampled_points_follow_the_closed_polygon() -> None:
    square = np.array([[0, 0], [4, 0], [4, 4], [0, 4]], np.float32)
    (walk,) = ops.resample_segments([square], 9)
    assert walk.tolist() == [[0, 0], [2, 0], [4, 0], [4, 2], [4, 4], [2, 4], [0, 4], [0, 2], [0, 0]]


def test_a_polygon_outside_the_image_has_a_box_of_zeros() -> None:
    assert ops.segment2box(np.array([[-5.0, 2], [700, 3]]), 640, 640).tolist() == [0, 0, 0, 0]
    assert ops.segments2boxes([]).shape == (0, 4)
