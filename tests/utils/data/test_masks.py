"""Polygons and masks of samples: those of the original, and in step with boxes in every augmentation."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from tests.known import SHARED, arrays, golden, needs_shared, pattern_image
from tests.utils.data.image_files import OPENCV_5
from utils.base.errors import ConfigError, DataError
from utils.base.paths import ROOT
from utils.base.yaml_io import read_yaml
from utils.data.augment import mixup
from utils.data.dataset import DetectionDataset, Item, SampleKey
from utils.data.loader import collate, make_loader
from utils.data.perspective import (
    RESAMPLED,
    PerspectiveDraws,
    random_perspective,
    resample,
    warp_matrix,
    warp_polygons,
)
from utils.data.samples import Sample
from utils.ops.boxes import segment2box, segments2boxes
from utils.tasks.segment.rasterize import MaskFormat

KNOWN, ARRAYS = golden("14_segment_augment"), arrays("14_segment_augment")
WARPS: list[dict[str, Any]] = KNOWN["random_perspective"]
PLAIN = read_yaml(ROOT / "data/hyps/hyp.no-augmentation.yaml")
STRONG = read_yaml(ROOT / "data/hyps/hyp.scratch-high.yaml") | {
    "mosaic": 0.7, "mixup": 0.5, "copy_paste": 0.5, "degrees": 20.0, "shear": 5.0, "perspective": 0.0005,
    "flipud": 0.5,
}  # fmt: skip
SINGLE, PACKED = MaskFormat(1, overlap=False), MaskFormat(4, overlap=True)
LEAF = "0.1 0.2 0.45 0.15 0.5 0.3 0.3 0.45 0.12 0.4"  # a polygon without symmetries
HOOK = "0.6 0.5 0.9 0.5 0.9 0.95 0.8 0.95 0.8 0.6 0.6 0.6"


@pytest.mark.parametrize("index", range(3))
def test_polygons_are_resampled_as_in_the_original(index: int) -> None:
    points = resample(ARRAYS[f"resample/in{index}"].astype(np.float64))
    assert points.shape == (RESAMPLED, 2)
    np.testing.assert_allclose(points[::37], ARRAYS[f"resample/out{index}_every_37th"], atol=1e-6)


def test_boxes_of_polygons_equal_the_original() -> None:
    boxes = segments2boxes([ARRAYS[f"resample/in{index}"] for index in range(3)])
    np.testing.assert_allclose(boxes, ARRAYS["segments2boxes_xywh"], atol=1e-4)
    inside = [segment2box(ARRAYS[f"resample/in{index}"], 100, 80) for index in range(3)]
    np.testing.assert_allclose(inside, KNOWN["segment2box_100x80"], atol=1e-4)
    outside = segment2box(ARRAYS["resample/in0"] + 1000, 100, 80)
    assert [outside.tolist()] == KNOWN["segment2box_all_outside"]


def golden_sample(number: int) -> Sample:
    case = WARPS[number]
    polygons = [ARRAYS[f"rp{number}/segment{index}"] for index in range(case["n_in"])]
    height, width = case["in_hw"]
    image = pattern_image(height, width, case["pattern_k"])
    return Sample(image, ARRAYS[f"rp{number}/boxes_in"], polygons)


@pytest.mark.parametrize("number", range(len(WARPS)))
def test_warped_boxes_polygons_and_masks_equal_the_original(number: int) -> None:
    case, sample = WARPS[number], golden_sample(number)
    height, width = case["out_hw"]
    boxes, polygons = warp_polygons(sample, np.array(case["matrix"]), case["draws"]["scale"], (height, width))
    np.testing.assert_allclose(boxes, ARRAYS[f"rp{number}/boxes_out"], atol=1e-3)
    assert list(np.stack(polygons).shape) == case["segments_shape"]
    expected = ARRAYS[f"rp{number}/segments_out_every_100th"]
    np.testing.assert_allclose(np.stack(polygons)[:, ::100], expected, atol=1e-3)

    (packed,), order = PACKED.draw(polygons, case["out_hw"])
    singles, _ = MaskFormat(4, overlap=False).draw(polygons, case["out_hw"])
    areas = singles.sum((1, 2))
    assert areas[order].tolist() == areas[case["order"]].tolist()
    # The order of objects of equal areas is not defined: compare the maps where none of them is.
    owner, known_owner = (
        np.append(-1, each)[values.astype(int)]
        for each, values in ((order, packed), (np.array(case["order"]), ARRAYS[f"rp{number}/packed_ratio4"]))
    )
    repeated = np.flatnonzero(order != case["order"])
    tied = np.isin(owner, order[repeated]) | np.isin(known_owner, order[repeated])
    assert (owner == known_owner)[~tied].all()
    assert len(repeated) == 0 or ((owner >= 0) == (known_owner >= 0)).all()


@pytest.mark.parametrize("number", range(len(WARPS)))
def test_draws_give_the_image_and_matrix_of_the_original(number: int) -> None:
    case, drawn = WARPS[number], WARPS[number]["draws"]
    height, width = case["out_hw"]
    draws = PerspectiveDraws(
        drawn["p20"], drawn["p21"], drawn["angle"], drawn["scale"], drawn["shear_x"], drawn["shear_y"],
        drawn["tx"] / width, drawn["ty"] / height,
    )  # fmt: skip
    np.testing.assert_allclose(warp_matrix(draws, case["in_hw"], case["out_hw"]), case["matrix"], atol=1e-6)
    top, left = case["border"]
    warped = random_perspective(golden_sample(number), draws, (top, left), keep_polygons=True)
    assert warped.image.shape == (height, width, 3)
    assert warped.image.mean() == pytest.approx(case["image_mean"], abs=0.5)
    if OPENCV_5:
        assert hashlib.sha256(warped.image.tobytes()).hexdigest() == case["image_sha256"]
    np.testing.assert_allclose(warped.boxes, ARRAYS[f"rp{number}/boxes_out"], atol=1e-3)


def test_mixup_keeps_the_polygons_of_both_images() -> None:
    known = KNOWN["mixup"]
    boxes = np.array(known["labels"], np.float32)
    polygons = list(np.random.default_rng(0).uniform(0, 30, known["segments_shape"]))
    image = pattern_image(40, 40)
    one, other = Sample(image, boxes[:2], polygons[:2]), Sample(image, boxes[2:], polygons[2:])
    blend = mixup(one, other, known["lambda"])
    assert blend.boxes.tolist() == known["labels"]
    assert list(np.stack(blend.polygons).shape) == known["segments_shape"]
    assert (np.stack(blend.polygons) == np.stack(polygons)).all()
    nothing = Sample(image, np.zeros((0, 5), np.float32))
    assert len(mixup(one, nothing, 0.5).polygons) == len(mixup(nothing, one, 0.5).polygons) == 2


def known_item(known: Mapping[str, Any]) -> str:
    return f"{known['image'].split('_')[0]}-{known['img_size']}-{known['mask_ratio']}-{known['overlap']}"


@needs_shared
@pytest.mark.parametrize("known", KNOWN["items"], ids=known_item)
def test_items_equal_the_original(known: dict[str, Any]) -> None:
    def item(overlap: bool) -> Item:
        data = DetectionDataset(
            [SHARED / "data/nuclei/images/val"], known["img_size"], rect=known["rect"], pad=known["pad"],
            batch_size=known["batch"], masks=MaskFormat(known["mask_ratio"], overlap),
        )  # fmt: skip
        names = [path.name for path in data.image_files]
        return data[names.index(known["image"])]

    found = item(known["overlap"])
    assert found.masks is not None and found.shapes is not None
    assert list(found.image.shape) == known["image_shape"]
    assert list(found.masks.shape) == known["masks_shape"]
    (original_hw, (gains, pad)) = known["shapes"]
    assert list(found.shapes.original_hw) == original_hw
    assert [*found.shapes.ratio_pad.gain_hw, *found.shapes.ratio_pad.pad_xy] == pytest.approx([*gains, *pad])
    expected, rows = np.array(known["labels"]).reshape(-1, 6), found.labels.numpy()
    np.testing.assert_allclose(in_order(rows), in_order(expected), atol=1e-5)
    assert int(found.masks.sum()) == known["masks_sum"]
    if not known["overlap"]:
        np.testing.assert_allclose(rows, expected, atol=1e-5)
        assert found.masks.sum((1, 2)).tolist() == known["per_value"]
        return
    values = [int((found.masks == number).sum()) for number in range(1, len(rows) + 1)]
    assert values == known["per_value"]
    if not len(rows):
        return
    # Of objects with equal areas the order is not defined.
    single = item(overlap=False)
    assert single.masks is not None
    areas = single.masks.sum((1, 2)).numpy()
    found_areas, known_areas = (areas[places(single.labels.numpy(), each)] for each in (rows, expected))
    assert found_areas.tolist() == known_areas.tolist()


def in_order(rows: np.ndarray) -> np.ndarray:
    return rows[np.lexsort(rows.round(3).T)]


def places(rows: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return where `wanted` (n, k) are among `rows` (n, k)."""
    distances = np.abs(rows[None] - wanted[:, None]).max(2)
    assert (distances.min(1) < 1e-5).all()
    return distances.argmin(1)


def make_set(root: Path, *files: str, side: int = 64) -> Path:
    """Write square images with these label files below root/images and root/labels."""
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number, text in enumerate(files):
        cv2.imwrite(str(root / f"images/{number}.png"), pattern_image(side, side, 30 * number))
        (root / f"labels/{number}.txt").write_text(text)
    return root / "images"


def bounds(mask: torch.Tensor) -> list[float]:
    """Return the bounds xyxy of the pixels of a mask (h, w)."""
    rows, columns = mask.nonzero(as_tuple=True)
    return [float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)]


def boxes_of(item: Item) -> np.ndarray:
    """Return the boxes (n, 4) xyxy of an item, in pixels."""
    height, width = item.image.shape[1:]
    x, y, w, h = item.labels[:, 2:].numpy().T
    return np.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), 1) * (width, height, width, height)


@pytest.mark.parametrize("up_down", [0.0, 1.0])
@pytest.mark.parametrize("left_right", [0.0, 1.0])
@pytest.mark.parametrize("masks", [SINGLE, PACKED])
def test_masks_follow_flips(tmp_path: Path, masks: MaskFormat, up_down: float, left_right: float) -> None:
    images = make_set(tmp_path, f"0 {LEAF}\n1 {HOOK}\n")
    hyp = PLAIN | {"mosaic": 0.0, "flipud": up_down, "fliplr": left_right}
    plain, flipped = (
        DetectionDataset([images], 64, augment=True, hyp=each, masks=masks)[0]
        for each in (hyp | {"flipud": 0.0, "fliplr": 0.0}, hyp)
    )
    assert plain.masks is not None and flipped.masks is not None and plain.masks.any()
    axes = [axis for axis, flip in ((1, up_down), (2, left_right)) if flip]
    assert torch.equal(flipped.masks, plain.masks.flip(axes))
    assert torch.equal(flipped.image, plain.image.flip(axes))
    if masks is SINGLE:
        assert len(flipped.masks) == 2
        for mask, box in zip(flipped.masks, boxes_of(flipped), strict=True):
            np.testing.assert_allclose(bounds(mask), box, atol=1.5)


def test_masks_stay_inside_their_boxes_in_every_augmentation(tmp_path: Path) -> None:
    files = [f"0 {LEAF}\n1 {HOOK}\n", "", f"0 {HOOK}\n", f"1 {LEAF}\n"]
    hyp = STRONG | {"flipud": 0.0, "fliplr": 0.0}
    data = DetectionDataset([make_set(tmp_path, *files)], 64, augment=True, hyp=hyp, masks=SINGLE)
    counts = []
    for epoch in range(40):
        for index in range(len(data)):
            item = data[SampleKey(epoch, index)]
            assert item.masks is not None and item.masks.shape == (len(item.labels), 64, 64)
            counts.append(len(item.labels))
            for mask, box in zip(item.masks, boxes_of(item), strict=True):
                assert mask.any()
                # Points up to a pixel left of or above the image are truncated to its first column or row.
                mask[0], mask[:, 0] = 0, 0
                found = np.array(bounds(mask)) if mask.any() else box
                assert (found[:2] >= box[:2] - 2).all() and (found[2:] <= box[2:] + 2).all()
    assert min(counts) == 0 and max(counts) > 8


def test_maps_hold_the_visible_parts_of_single_masks_in_the_order_of_labels(tmp_path: Path) -> None:
    images = make_set(tmp_path, *[f"0 {LEAF}\n1 {HOOK}\n2 0.2 0.2 0.4 0.2 0.4 0.4\n"] * 3)
    single, packed = (
        DetectionDataset([images], 64, augment=True, hyp=STRONG, masks=MaskFormat(2, overlap), seed=3)
        for overlap in (False, True)
    )
    for epoch in range(10):
        one, other = single[SampleKey(epoch, 0)], packed[SampleKey(epoch, 0)]
        assert one.masks is not None and other.masks is not None and torch.equal(one.image, other.image)
        if not len(one.labels):
            assert not other.masks.any() and not len(other.labels)
            continue
        whole = one.masks[places(one.labels.numpy(), other.labels.numpy())]
        for number, mask in enumerate(whole, 1):
            assert not ((other.masks[0] == number) & (mask == 0)).any()
        sizes = [int(mask.sum()) for mask in whole if mask.any()]
        assert sizes == sorted(sizes, reverse=True)
        assert torch.equal(other.masks[0] > 0, whole.any(0))


def test_a_file_may_have_boxes_and_polygons(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    images = make_set(tmp_path, f"1 0.75 0.25 0.25 0.125\n0 {LEAF}\n", f"0 {LEAF}\n")
    for augment in (False, True):
        data = DetectionDataset([images], 64, augment=augment, hyp=PLAIN | {"mosaic": 0.0}, masks=SINGLE)
        item = data[0]
        assert item.masks is not None and item.labels[:, 1].tolist() == [1, 0]
        # The mask of the box is its rectangle, not a line: x 40-56, y 12-20, and the pixels of the edges.
        assert bounds(item.masks[0]) == [40, 12, 57, 21] and item.masks[0].sum() >= 16 * 9
        np.testing.assert_allclose(bounds(item.masks[1]), boxes_of(item)[1], atol=1.5)
    assert "1 of 3 labels are boxes without a polygon; their masks are the rectangles" in caplog.text


def test_a_dataset_of_boxes_cannot_train_masks_but_be_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = make_set(tmp_path, "0 0.5 0.5 0.25 0.5\n", "1 0.25 0.25 0.25 0.25\n0 0.75 0.5 0.25 0.25\n")
    message = "3 of 3 labels are boxes without a polygon"
    with pytest.raises(DataError, match=message) as error:
        DetectionDataset([images], 64, augment=True, hyp=PLAIN, masks=PACKED)
    assert str(images) in str(error.value) and "\n" not in str(error.value)
    item = DetectionDataset([images], 64, masks=SINGLE)[0]
    assert message in caplog.text
    assert item.masks is not None and bounds(item.masks[0]) == [24, 16, 41, 49]


def test_a_dataset_without_masks_reads_no_polygons(tmp_path: Path) -> None:
    images = make_set(tmp_path, f"0 {LEAF}\n", "0 0.5 0.5 0.25 0.5\n")
    assert DetectionDataset([images], 64, augment=True, hyp=PLAIN)[0].masks is None


@pytest.mark.parametrize(
    "points",
    [
        "0.5 0.5 0.50001 0.5 0.5 0.50001",  # all points are nearly equal
        "0.2 0.5 0.4 0.50001 0.7 0.5",  # nearly on a line
        "0.5 0.5 0.51 0.5 0.51 0.51",  # smaller than a pixel
        "0 0 1 0 1 1 0 1",  # the whole image
        "1 1 1 0.999 0.99 0.99",
    ],
)
@pytest.mark.parametrize("masks", [SINGLE, PACKED])
def test_degenerate_polygons_are_used_without_an_error(
    tmp_path: Path, points: str, masks: MaskFormat
) -> None:
    images = make_set(tmp_path, *[f"0 {LEAF}\n1 {points}\n"] * 2)
    plain = DetectionDataset([images], 64, masks=masks)[0]
    assert plain.masks is not None and sorted(plain.labels[:, 1].tolist()) == [0, 1]
    data = DetectionDataset([images], 64, augment=True, hyp=STRONG, masks=masks)
    for epoch in range(10):
        item = data[SampleKey(epoch, 0)]
        assert item.masks is not None and torch.isfinite(item.labels).all()
        assert len(item.masks) == (1 if masks.overlap else len(item.labels))


def test_masks_have_the_shape_of_rectangular_batches(tmp_path: Path) -> None:
    images = make_set(tmp_path, *[f"0 {LEAF}\n"] * 3)
    cv2.imwrite(str(images / "0.png"), pattern_image(32, 64))
    data = DetectionDataset([images], 64, batch_size=1, rect=True, masks=PACKED)
    items = [data[index] for index in range(3)]
    assert [tuple(item.image.shape[1:]) for item in items] == [(32, 64), (64, 64), (64, 64)]
    assert [tuple(item.masks.shape) for item in items if item.masks is not None] == [
        (1, 8, 16), (1, 16, 16), (1, 16, 16),
    ]  # fmt: skip


@pytest.mark.parametrize("masks", [MaskFormat(4, overlap=False), PACKED])
def test_a_batch_holds_the_masks_of_its_images(tmp_path: Path, masks: MaskFormat) -> None:
    images = make_set(tmp_path, f"0 {LEAF}\n1 {HOOK}\n", "", f"0 {HOOK}\n")
    data = DetectionDataset([images], 64, masks=masks)
    (batch,) = make_loader(data, 3, workers=0)
    assert batch.masks is not None and batch.overlap is masks.overlap
    assert len(batch.masks) == 3
    assert batch.labels[1] is batch.masks
    for index, expected in enumerate((2, 0, 1)):
        own = batch.masks_of(index)
        assert own.shape == (expected, 16, 16) and own.dtype == torch.bool and own.flatten(1).any(1).all()
    single = DetectionDataset([images], 64, masks=MaskFormat(4, overlap=False))[2]
    assert single.masks is not None and torch.equal(batch.masks_of(2), single.masks > 0)


def test_maps_of_few_and_of_many_objects_form_one_batch(tmp_path: Path) -> None:
    points = [(x / 20, y / 20) for y in range(18) for x in range(18)]
    crowd = "".join(f"0 {x} {y} {x + 0.03} {y} {x + 0.03} {y + 0.03}\n" for x, y in points)
    data = DetectionDataset([make_set(tmp_path, crowd, f"0 {LEAF}\n")], 64, masks=MaskFormat(1))
    batch = collate([data[0], data[1]])
    assert batch.masks is not None and batch.masks.dtype == torch.int32
    assert batch.masks[0].max() == len(points) and batch.masks[1].max() == 1


def test_quads_of_images_with_masks_are_refused(tmp_path: Path) -> None:
    data = DetectionDataset([make_set(tmp_path, *[f"0 {LEAF}\n"] * 4)], 64, masks=PACKED)
    with pytest.raises(ConfigError, match="--quad"):
        make_loader(data, 4, workers=0, quad=True)
