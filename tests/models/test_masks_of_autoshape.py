"""AutoShape with a segmentation model: masks, polygons, drawn images, and supervision."""

from __future__ import annotations

import numpy as np
import pytest

from models.autoshape import AutoShape, Detections
from tests.test_segment_predict import MaskFinder

SIDE = 128


@pytest.fixture
def results() -> Detections:
    """A cat in the upper left quarter of a grey image, and a dog in the lower right quarter of the cat."""
    found = AutoShape(MaskFinder())(np.full((SIDE, SIDE, 3), 90, np.uint8), size=64)
    assert isinstance(found, Detections)
    return found


def test_masks_have_the_size_of_the_image(results: Detections) -> None:
    (masks,) = results.masks
    assert masks.shape == (2, SIDE, SIDE) and masks.dtype == bool
    expected = np.zeros_like(masks)
    expected[0, :64, :64] = expected[1, 32:64, 32:64] = True
    assert (masks != expected).mean() < 0.02, "but for a pixel of the input at the edges"
    for polygon, (low, high) in zip(results.polygons[0], ((0, 64), (32, 64)), strict=True):
        np.testing.assert_allclose(polygon.min(0), low, atol=2.1)
        np.testing.assert_allclose(polygon.max(0), high, atol=2.1)
    (single,) = results.tolist()
    np.testing.assert_array_equal(single.masks[0], masks)


def test_masks_are_drawn_below_the_boxes(results: Detections) -> None:
    (drawn,) = results.render(labels=False)
    inside, outside = drawn[10, 10].astype(int), drawn[100, 100].astype(int)
    assert outside.tolist() == [90, 90, 90]
    assert np.abs(inside - (90 + np.array((0x04, 0x2A, 0xFF))) / 2).max() <= 1, "half of the colour, in RGB"
    assert results.ims[0] is drawn and (results.original(0) == 90).all()
    np.testing.assert_array_equal(results.render(labels=False)[0], drawn)


def test_supervision_gets_the_masks(results: Detections) -> None:
    pytest.importorskip("supervision")
    (found,) = results.to_supervision()
    np.testing.assert_array_equal(found.mask, results.masks[0])
    assert found.data["class_name"].tolist() == ["cat", "dog/wolf"]
    assert abs(int(found[0].area[0]) - 64 * 64) < 200


def test_boxes_of_a_detector_have_no_masks() -> None:
    backend = MaskFinder()
    backend.task = "detect"
    infer = backend.infer
    backend.infer = lambda images: infer(images)[0][:, :, :7]  # type: ignore[method-assign]
    found = AutoShape(backend)(np.full((SIDE, SIDE, 3), 90, np.uint8), size=64)
    assert found.masks == found.polygons == [] and len(found.pred[0]) == 2
