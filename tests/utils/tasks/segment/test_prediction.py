"""Masks of an image for segment/predict.py: on the image, and as polygons; those of the original."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from tests.known import arrays
from tests.utils.tasks.segment.golden_masks import PROCESS, bits, detected, gap
from utils.tasks.segment.prediction import FrameMasks, MaskBlock


def frame_masks(name: str, native: bool) -> FrameMasks:
    """Return the masks of a golden case."""
    x = detected(name)
    rows = torch.cat((x.boxes, torch.ones(5, 2), x.coefficients), 1)
    return FrameMasks.of(x.protos, rows, x.input_hw, x.native_boxes.numpy(), x.image_hw, native)


@pytest.mark.parametrize("native", [False, True], ids=["input", "native"])
@pytest.mark.parametrize("name", PROCESS)
def test_polygons_equal_the_original(name: str, native: bool) -> None:
    stored, prefix = arrays("14_segment_masks"), "native_polygon" if native else "polygon"
    masks = frame_masks(name, native)
    polygons = masks.polygons()
    for index in range(3):
        expected = stored[f"{name}/{prefix}{index}"]
        assert polygons[index].dtype == np.float32 and polygons[index].shape == expected.shape
        np.testing.assert_allclose(polygons[index], expected, atol=1e-4)
    for points, count, mask in zip(
        polygons, PROCESS[name][f"{prefix}_points"], masks.whole().masks, strict=True
    ):
        if len(points) != count:  # the original takes the part with the most points, we the largest one
            found = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]
            areas = {len(part): cv2.contourArea(part) for part in found}
            assert max(areas) == count and areas[len(points)] > areas[count]


@pytest.mark.parametrize("name", PROCESS)
def test_native_masks_are_those_of_the_image(name: str) -> None:
    height, width = PROCESS[name]["native_hw"]
    native = frame_masks(name, True)
    expected = bits(arrays("14_segment_masks")[f"{name}/native"], (5, height, width))
    assert native.on_image().dtype == np.uint8 and gap(native.on_image(), expected) < 0.005
    assert frame_masks(name, False).on_image().shape == native.whole().masks.shape


def test_masks_of_the_input_are_enlarged_to_the_image_without_the_letterbox() -> None:
    masks = np.zeros((2, 64, 64), bool)
    masks[0, 16:48] = masks[1, 16:32, 32:] = True  # rows 0-15 and 48-63 of the square are padding
    whole, corner = MaskBlock(masks, (60, 120)).on_image()
    assert whole.dtype == np.uint8 and (whole == 1).all()
    expected = np.zeros((60, 120), np.uint8)
    expected[:30, 60:] = 1
    assert (corner == expected).all()


def test_polygons_are_fractions_of_the_image_without_the_letterbox() -> None:
    masks = np.zeros((1, 64, 64), bool)
    masks[0, 10:40, :32] = True  # rows 0-15 and 48-63 of the square are padding
    (points,) = MaskBlock(masks, (60, 120)).polygons()
    assert points.min(0).tolist() == [0, 0]
    np.testing.assert_allclose(points.max(0), [31 / 64, (39 - 16) / 32], atol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(slice(0, 0), slice(0, 0)), (5, 7), (5, slice(2, 9))])
def test_masks_thinner_than_a_polygon_have_no_points(rows: slice | int, columns: slice | int) -> None:
    masks = np.zeros((2, 16, 16), bool)
    masks[0, rows, columns] = True
    masks[1, 3:9, 4:9] = True
    nothing, points = MaskBlock(masks, (16, 16)).polygons()
    assert nothing.shape == (0, 2) and len(points) == 4


def test_an_image_without_detections_has_no_masks() -> None:
    nothing = FrameMasks.of(
        torch.rand(32, 16, 16), torch.zeros(0, 38), (64, 64), np.zeros((0, 4), np.float32), (40, 80)
    )
    assert nothing.polygons() == [] and nothing.on_image().shape == (0, 40, 80)
