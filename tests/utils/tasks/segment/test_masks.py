"""Masks from prototypes and coefficients: those of the original, at every size, in blocks of any size."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from tests.utils.tasks.segment.golden_masks import PROCESS, bits, detected, gap
from utils.tasks.segment import masks as masks_module
from utils.tasks.segment.masks import (
    crop_mask,
    mask_iou,
    mask_overlaps,
    process_mask,
    process_mask_native,
    process_mask_upsample,
    scale_masks,
    unpadded,
)

MOST = 0.005  # of the pixels of a mask may differ

upsampled = partial(process_mask, upsample=True)


def test_pixels_outside_of_boxes_are_cut_off_as_in_the_original() -> None:
    stored = arrays("14_segment_masks")
    masks, boxes = (torch.from_numpy(stored[f"crop/{key}"]) for key in ("masks", "boxes"))
    assert (crop_mask(masks, boxes).numpy() == stored["crop/out"]).all()


def test_values_inside_of_boxes_stay_as_they_are() -> None:
    stored = arrays("masks")
    values, boxes = torch.from_numpy(stored["protos"])[:2].abs(), torch.from_numpy(stored["boxes_in_160"])[:2]
    assert (crop_mask(values, boxes / 4).numpy() == stored["crop_mask_first"]).all()


@pytest.mark.parametrize(
    ("key", "function", "shape"),
    [
        ("process_mask", process_mask, (160, 160)),
        ("process_mask_upsample", upsampled, (160, 160)),
        ("process_mask_native_120x200", process_mask_native, (120, 200)),
    ],
)
def test_masks_of_real_valued_outputs_equal_the_original(
    key: str, function: Callable[..., Tensor], shape: tuple[int, int]
) -> None:
    stored, known = arrays("masks"), golden("13_segment")[key]
    given = (torch.from_numpy(stored[name]) for name in ("protos", "coef", "boxes_in_160"))
    assert gap(function(*given, shape), bits(stored[key], known["shape"])) < MOST


@pytest.mark.parametrize("name", PROCESS)
def test_masks_equal_the_original_at_every_size(name: str) -> None:
    known, x = PROCESS[name], detected(name)
    stored = {key: arrays("14_segment_masks")[f"{name}/{key}"] for key in known_sizes(known)}
    of_input = (x.protos, x.coefficients, x.boxes, x.input_hw)
    found = {
        "small": process_mask(*of_input),
        "large": upsampled(*of_input),
        "native": process_mask_native(x.protos, x.coefficients, x.native_boxes, x.image_hw),
        "native_at_input": process_mask_native(*of_input),
    }
    for key, masks in found.items():
        assert masks.dtype == torch.bool
        assert gap(masks, bits(stored[key], (len(masks), *known_sizes(known)[key]))) < MOST, key
        np.testing.assert_allclose(masks.sum((1, 2)), known[f"{key}_pixels"], atol=1)


def known_sizes(known: dict[str, Any]) -> dict[str, Any]:
    at_input = {key: known["input_hw"] for key in ("large", "native_at_input")}
    return {"small": known["proto_hw"], "native": known["native_hw"], **at_input}


@pytest.mark.parametrize("name", PROCESS)
def test_masks_are_scaled_to_the_image_as_in_the_original(name: str) -> None:
    known, x = PROCESS[name]["scale_image"], detected(name)
    masks = process_mask_native(x.protos, x.coefficients, x.boxes, x.input_hw)
    pad_xy = tuple(known["ratio_pad"][1]) if known["ratio_pad"] else None
    scaled = scale_masks(masks, x.image_hw, pad_xy)
    expected = bits(arrays("14_segment_masks")[f"{name}/scaled"], known["shape"]).transpose(2, 0, 1)
    assert scaled.dtype == np.uint8 and gap(scaled, expected) < MOST
    assert (scale_masks(masks.numpy(), x.image_hw, pad_xy) == scaled).all()


def test_more_masks_are_scaled_than_opencv_does_at_a_time() -> None:
    known = golden("14_segment_masks")["scale_image_shapes"]
    for key, count in (("one", 1), ("131_masks", 131)):
        height, width, n = known[key]
        masks = torch.zeros(count, 64, 64, dtype=torch.bool)
        masks[-1, 20:44] = True
        scaled = scale_masks(masks, (height, width))
        assert scaled.shape == (n, height, width)
        assert scaled[-1].any() and not scaled[:-1].any()


FUNCTIONS = [process_mask, upsampled, process_mask_upsample, process_mask_native]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_masks_do_not_depend_on_the_size_of_blocks(
    function: Callable[..., Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    x = detected("case1")
    expected = function(x.protos, x.coefficients, x.boxes, x.input_hw)
    for pixels in (1, 40_000):
        monkeypatch.setattr(masks_module, "BLOCK_PIXELS", pixels)
        assert torch.equal(function(x.protos, x.coefficients, x.boxes, x.input_hw), expected)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_detections_have_no_masks(function: Callable[..., Tensor]) -> None:
    x = detected("case3")
    masks = function(x.protos, x.coefficients[:0], x.boxes[:0], x.input_hw)
    size = x.protos.shape[1:] if function is process_mask else x.input_hw
    assert masks.shape == (0, *size) and masks.dtype == torch.bool
    assert scale_masks(masks, (30, 40)).shape == (0, 30, 40)


def test_rows_of_nms_serve_as_boxes_and_half_precision_as_input() -> None:
    x = detected("case2")
    expected = process_mask(x.protos, x.coefficients, x.boxes, x.input_hw)
    rows = torch.cat((x.boxes, torch.rand(5, 2), x.coefficients), 1)
    assert torch.equal(process_mask(x.protos, rows[:, 6:], rows, x.input_hw), expected)
    assert gap(process_mask(x.protos.half(), rows[:, 6:].half(), rows, x.input_hw), expected.numpy()) < 0.05


def test_masks_that_are_cut_after_they_are_enlarged_have_straight_edges() -> None:
    protos = torch.full((1, 16, 16), 9.0)  # every pixel of every mask is set
    box = torch.tensor([[13.0, 21.0, 38.0, 50.0]])
    masks = process_mask_upsample(protos, torch.ones(1, 1), box, (64, 64))
    assert masks[0, 21:50, 13:38].all() and masks.sum() == 29 * 25


@pytest.mark.parametrize(
    ("inner", "shape", "expected"),
    [
        ((64, 64), (60, 120), (16, 48, 0, 64)),
        ((64, 64), (64, 64), (0, 64, 0, 64)),
        ((40, 40), (120, 200), (8, 32, 0, 40)),
        ((64, 64), (4000, 10), (0, 64, 31, 32)),  # an image that is narrower than a pixel of the mask
    ],
)
def test_the_letterbox_is_cut_off(
    inner: tuple[int, int], shape: tuple[int, int], expected: tuple[int, ...]
) -> None:
    rows, columns = unpadded(inner, shape)
    assert (rows.start, rows.stop, columns.start, columns.stop) == expected


def test_ious_of_masks() -> None:
    a = torch.zeros(3, 10, 10, dtype=torch.bool)
    a[0, :4], a[1, 2:6] = True, True
    overlap = mask_iou(a.flatten(1), a.flatten(1))
    assert overlap[:2, :2].flatten().tolist() == pytest.approx([1, 1 / 3, 1 / 3, 1])
    assert (overlap[2] == 0).all() and (overlap[:, 2] == 0).all()  # empty masks, also with themselves


@pytest.mark.parametrize("count", [0, 1, 31, 300])
@pytest.mark.parametrize("objects", [0, 1, 9])
def test_overlaps_are_the_iou_of_whole_masks(count: int, objects: int) -> None:
    random = torch.Generator().manual_seed(count)
    protos = torch.randn(4, 24, 40, generator=random)
    coefficients = torch.randn(count, 4, generator=random)
    corners = torch.rand(count, 2, generator=random) * 200 - 40  # of an input of 96 x 160; some are outside
    boxes = torch.cat((corners, corners + torch.rand(count, 2, generator=random) * 90), 1)
    truth = torch.rand(objects, 24, 40, generator=random) > 0.5

    whole = process_mask(protos, coefficients, boxes, (96, 160)).flatten(1)
    expected = mask_iou(truth.flatten(1), whole)
    overlaps = mask_overlaps(truth, protos, coefficients, boxes, (96, 160))
    torch.testing.assert_close(overlaps, expected, rtol=0, atol=5e-3)  # a pixel, whose sum rounds to 0
    assert (overlaps != expected).sum() <= expected.numel() // 100


def test_boxes_without_an_area_or_a_number_overlap_nothing() -> None:
    nan, inf = float("nan"), float("inf")
    boxes = torch.tensor(
        [[nan] * 4, [0, nan, 16, 16], [8, 8, 4, 4], [-inf, -inf, -1, -1], [-inf, -inf, inf, inf]]
    )
    truth, ones = torch.ones(2, 4, 4, dtype=torch.bool), torch.ones(3, 4, 4)

    overlap = mask_overlaps(truth, ones, torch.ones(5, 3), boxes, (16, 16))

    assert overlap.tolist() == [[0, 0, 0, 0, pytest.approx(1)]] * 2
