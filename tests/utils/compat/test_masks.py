"""Masks as the original makes them, and models of the other tasks as torch.load makes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from models.common import DetectMultiBackend
from models.experimental import attempt_load
from tests.known import SHARED, arrays, needs_shared
from utils.augmentations import classify_transforms, letterbox
from utils.general import non_max_suppression
from utils.plots import Annotator
from utils.segment.general import (
    crop_mask,
    mask_iou,
    masks2segments,
    process_mask,
    process_mask_native,
    process_mask_upsample,
    scale_image,
)


@pytest.mark.parametrize(
    ("name", "function", "shape"),
    [
        ("process_mask", process_mask, (160, 160)),
        ("process_mask_upsample", partial(process_mask, upsample=True), (160, 160)),
        ("process_mask_native_120x200", process_mask_native, (120, 200)),
    ],
)
def test_masks_are_those_of_the_original(name: str, function, shape: tuple[int, int]) -> None:
    stored = arrays("masks")
    protos, coefficients = torch.from_numpy(stored["protos"]), torch.from_numpy(stored["coef"])
    boxes = torch.from_numpy(stored["boxes_in_160"])
    masks = function(protos, coefficients, boxes, shape)
    expected = np.unpackbits(stored[name])[: masks.numel()].reshape(masks.shape)
    assert (masks.numpy() != expected).mean() < 0.005


def test_a_mask_may_be_enlarged_before_it_is_cut_to_its_box() -> None:
    stored = arrays("masks")
    given = (torch.from_numpy(stored[key]) for key in ("protos", "coef", "boxes_in_160"))
    masks = process_mask_upsample(*given, (160, 160))
    expected = np.unpackbits(stored["process_mask_upsample"])[: masks.numel()].reshape(masks.shape)
    assert 0 < (masks.numpy() != expected).mean() < 0.01  # without the steps of the small masks


def test_a_mask_is_0_outside_of_its_box() -> None:
    masks = crop_mask(torch.ones(1, 6, 8), torch.tensor([[2.0, 1.0, 5.0, 4.0]]))
    assert masks.sum() == 9 and masks[0, 1:4, 2:5].all()


def test_masks_become_polygons_of_their_largest_part() -> None:
    masks = torch.zeros(3, 40, 40)
    masks[0, 5:15, 5:15] = masks[0, 30:33, 30:33] = masks[1, 2:8, 3:9] = 1
    largest, other, none = masks2segments(masks)
    assert largest.dtype == np.float32 and largest.max() < 15 and len(other) and none.shape == (0, 2)
    assert masks2segments(masks, "concat")[0].max() >= 30
    flat = masks.flatten(1)
    assert mask_iou(flat, flat).diagonal()[:2] == pytest.approx([1, 1], abs=1e-5)


def test_masks_are_drawn_in_place_without_the_padding() -> None:
    image = np.zeros((60, 120, 3), np.uint8)
    masks = torch.zeros(1, 64, 64)
    masks[0, 16:48, :32] = 1  # the left half of the image inside its square
    assert scale_image((64, 64), masks.numpy().transpose(1, 2, 0), image.shape).shape == (60, 120, 1)
    annotator = Annotator(image)
    annotator.masks(masks, colors=[(255, 0, 0)], im_gpu=torch.zeros(3, 64, 64))
    assert annotator.result() is image and image[30, 20].tolist() == [0, 0, 128] and not image[30, 100].any()
    annotator.masks(torch.zeros(0, 64, 64), colors=[])


def unpickle(file: Path) -> torch.nn.Module:
    return torch.load(file, weights_only=False)["model"].float().fuse().eval()


LOADERS = [unpickle, attempt_load, DetectMultiBackend]


@needs_shared
@pytest.mark.parametrize("load", LOADERS)
def test_a_segmentation_file_finds_the_objects_of_the_original(load: Callable[[Path], Any]) -> None:
    model = load(SHARED / "weights/nuclei-seg.pt")
    known = json.loads((SHARED / "fixtures/14_segment_predict.json").read_text())["input_size_masks"]
    assert known
    for name, rows in known.items():
        image = cv2.imread(str(next((SHARED / "data/nuclei/images/val").glob(f"{name}.*"))))
        boxed = letterbox(image, 256, stride=32)[0]
        x = torch.from_numpy(np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))).float()[None] / 255
        with torch.no_grad():
            pred, proto = model(x)[:2]
        (found,) = non_max_suppression(pred, 0.25, 0.45, nm=32, max_det=1000)
        masks = process_mask(proto[0], found[:, 6:], found[:, :4], x.shape[2:], upsample=True)
        assert len(masks) == len(found)
        scores = sorted((row[-1] for row in rows), reverse=True)
        assert found[: len(scores), 4].tolist() == pytest.approx(scores, abs=2e-3)


@needs_shared
@pytest.mark.parametrize("load", LOADERS)
def test_a_classification_file_gives_the_logits_of_the_original(load: Callable[[Path], Any]) -> None:
    model = load(SHARED / "weights/cells-cls.pt")
    known = json.loads((SHARED / "fixtures/15_classify_val.json").read_text())["logits_96"]
    assert known
    for name, logits in known.items():
        x = classify_transforms(96)(cv2.imread(str(SHARED / "data/cells" / name)))
        with torch.no_grad():
            assert model(x[None])[0].tolist() == pytest.approx(logits, abs=1e-3)
