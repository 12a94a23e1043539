"""Metrics of boxes and masks: the numbers of the original; masks of any format are measured alike."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from tests.utils.tasks.segment.golden_masks import bits
from utils.data.loader import Batch
from utils.ops.metrics import match_overlaps, match_predictions
from utils.tasks.segment.masks import mask_iou
from utils.tasks.segment.polygons import decode_rle
from utils.tasks.segment.validation import HEADER, SegmentEvaluator, SegmentResult, _resized
from utils.val.accumulator import IOU_LEVELS, MatchAccumulator
from utils.val.evaluate import evaluate
from utils.val.outputs import OutputOptions

KNOWN = golden("14_segment_metrics")
CASES = [name for name in KNOWN if name not in ("csv_columns", "nothing")]


def masks_to_match() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the detections (14, 6), labels (6, 5), masks found (14, h, w) and packed true ones (h, w)."""
    stored = {key: torch.from_numpy(value) for key, value in arrays("14_segment_masks").items()}
    detections, labels, found, packed = (
        stored[f"match/{key}"] for key in ("detections", "labels", "pred", "packed")
    )
    return detections, labels, found, packed


def correct(truth: Tensor, found: Tensor, detections: Tensor, labels: Tensor) -> np.ndarray:
    overlap = mask_iou(found.flatten(1), truth.flatten(1))
    return match_overlaps(overlap, detections[:, 5], labels[:, 0], IOU_LEVELS).numpy()


def test_ious_and_matches_with_a_packed_map_equal_the_original() -> None:
    stored, (detections, labels, found, packed) = arrays("14_segment_masks"), masks_to_match()
    truth = packed == torch.arange(1, 7)[:, None, None]
    overlap = mask_iou(truth.flatten(1), found.flatten(1))
    np.testing.assert_allclose(overlap.numpy(), stored["match/iou"], atol=1e-6)
    assert (correct(truth, found, detections, labels) == stored["match/overlap"]).all()


def test_matches_with_single_masks_of_full_size_equal_the_original() -> None:
    stored, (detections, labels, found, _) = arrays("14_segment_masks"), masks_to_match()
    fine = torch.from_numpy(
        bits(stored["match/fine_bits"], (6, *golden("14_segment_masks")["match"]["fine_hw"]))
    )
    truth = _resized(fine, found.shape[1:])
    assert (correct(truth, found, detections, labels) == stored["match/single"]).all()


def test_matches_by_box_equal_the_original() -> None:
    detections, labels, _, _ = masks_to_match()
    found = match_predictions(detections, labels, IOU_LEVELS).numpy()
    assert (found == arrays("14_segment_masks")["match/boxes"]).all()


def accumulated(name: str, kind: str, nc: int) -> Any:
    """Return the metrics of the golden true positives of boxes ("b") or masks ("m")."""
    stored = {key: torch.from_numpy(arrays("14_segment_metrics")[f"{name}/{key}"]) for key in KEYS}
    rows = torch.zeros(len(stored["conf"]), 6)
    rows[:, 4], rows[:, 5] = stored["conf"], stored["pred_cls"]
    labels = torch.zeros(len(stored["target_cls"]), 5)
    labels[:, 0] = stored["target_cls"]
    accumulator = MatchAccumulator(nc)
    accumulator.add(rows, labels, stored[f"tp_{kind}"])
    return accumulator.result({index: str(index) for index in range(nc)}, (0.0,) * 4)


KEYS = ("conf", "pred_cls", "target_cls", "tp_b", "tp_m")


@pytest.mark.parametrize("name", CASES)
def test_metrics_equal_the_original(name: str) -> None:
    known, stored = KNOWN[name], arrays("14_segment_metrics")
    box, mask = (accumulated(name, kind, known["nc"]) for kind in "bm")
    result = SegmentResult(**vars(box), mask=mask)
    assert result.metrics == pytest.approx(known["mean_results"], abs=1e-6)
    assert result.results == (*result.metrics, 0, 0, 0, 0)
    assert result.filled_maps == pytest.approx(known["maps"], abs=1e-6)
    assert result.class_quality == pytest.approx(np.array(known["maps"]) / 2, abs=1e-6)
    assert result.fitness() == pytest.approx(known["fitness"], abs=1e-6)
    for index, numbers in known["class_results"].items():
        assert result.class_metrics(int(index)) == pytest.approx(numbers, abs=1e-6)
    np.testing.assert_allclose(box.ap.ap, stored[f"{name}/ap_box"], atol=1e-6)
    np.testing.assert_allclose(mask.ap.ap, stored[f"{name}/ap_mask"], atol=1e-6)


def test_nothing_gives_zeros() -> None:
    nothing = MatchAccumulator(3).result({index: str(index) for index in range(3)}, (0.0,) * 4)
    result = SegmentResult(**vars(nothing), mask=nothing)
    assert list(result.metrics) == KNOWN["nothing"]["mean_results"]
    assert result.filled_maps.tolist() == KNOWN["nothing"]["maps"]
    assert result.fitness() == 0 and result.results == (0,) * 12


NAMES = {0: "cell", 1: "plate"}
SIDE, QUARTER = 64, 16
# Image, class, x1, y1, x2, y2 in pixels: multiples of four, so that masks are exact at a quarter of the size.
OBJECTS = [(0, 0, 8, 8, 24, 24), (0, 1, 40, 44, 56, 52), (1, 0, 16, 16, 48, 48)]


class FakeSegmenter(torch.nn.Module):
    """A model that finds given objects, each with a prototype of its own."""

    def __init__(self, shift: int = 0, objects: Sequence[tuple[int, ...]] = OBJECTS) -> None:
        super().__init__()
        self.shift = shift  # of the masks inside their boxes, in pixels
        self.objects = objects

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        nm = max(len(self.objects), 1)
        decoded = torch.zeros(len(images), 9, 5 + len(NAMES) + nm)
        protos = torch.full((len(images), nm, QUARTER, QUARTER), -30.0)
        for index, (image, cls, x1, y1, x2, y2) in enumerate(self.objects):
            row = decoded[image, index]
            row[:5] = torch.tensor([(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, 1])
            row[5 + cls], row[5 + len(NAMES) + index] = 0.9 - 0.01 * index, 1
            protos[image, index, y1 // 4 : y2 // 4, (x1 + self.shift) // 4 : x2 // 4] = 30
        return decoded, protos


def single_masks(ratio: int) -> Tensor:
    masks = torch.zeros(len(OBJECTS), SIDE // ratio, SIDE // ratio, dtype=torch.uint8)
    for mask, (_, _, *edges) in zip(masks, OBJECTS, strict=True):
        x1, y1, x2, y2 = (edge // ratio for edge in edges)
        mask[y1:y2, x1:x2] = 1
    return masks


def batch(ratio: int = 4, overlap: bool = False, labelled: bool = True) -> Batch:
    """Return two images of 64 px from files of 128 px, and their labels."""
    rows = [
        [image, cls, (x1 + x2) / 2 / SIDE, (y1 + y2) / 2 / SIDE, (x2 - x1) / SIDE, (y2 - y1) / SIDE]
        for image, cls, x1, y1, x2, y2 in OBJECTS
    ]
    masks = single_masks(ratio)
    if overlap:
        masks = torch.stack((masks[0] + 2 * masks[1], masks[2]))
    if not labelled:
        rows, masks = [], torch.zeros_like(masks) if overlap else masks[:0]
    return Batch(
        torch.full((2, 3, SIDE, SIDE), 100, dtype=torch.uint8),
        torch.tensor(rows).reshape(-1, 6),
        ["/data/images/0.jpg", "/data/images/1.jpg"],
        [((2 * SIDE, 2 * SIDE), ((0.5, 0.5), (0.0, 0.0)))] * 2,  # type: ignore[list-item]
        masks,
        overlap,
    )


def run(model: FakeSegmenter, *batches: Batch, **options: Any) -> SegmentResult:
    result = evaluate(
        model, batches, NAMES, device=torch.device("cpu"), evaluator=SegmentEvaluator, **options
    )
    assert isinstance(result, SegmentResult)
    return result


@pytest.mark.parametrize(("ratio", "overlap"), [(4, True), (4, False), (1, False), (1, True), (2, False)])
def test_a_perfect_model_gets_the_highest_metrics(ratio: int, overlap: bool) -> None:
    result = run(FakeSegmenter(), batch(ratio, overlap))
    # The curve falls from 1 to 0 within its last point.
    assert result.metrics == pytest.approx((1, 1, 0.995, 0.995) * 2)
    assert (result.seen, result.instances, result.label_counts.tolist()) == (2, 3, [2, 1])
    assert result.fitness() == pytest.approx(2 * 0.995)


def test_metrics_of_boxes_do_not_depend_on_masks() -> None:
    result = run(FakeSegmenter(shift=12), batch())  # a quarter to a half of each mask
    assert result.metrics[:4] == pytest.approx((1, 1, 0.995, 0.995))
    assert result.mask.map < 0.3
    none = run(FakeSegmenter(shift=32), batch())
    assert none.metrics == pytest.approx((1, 1, 0.995, 0.995, 0, 0, 0, 0))
    assert none.filled_maps == pytest.approx([0.995, 0.995])
    assert none.class_metrics(1)[4:] == (0, 0, 0, 0)


def test_the_table_has_columns_for_boxes_and_masks(logged: list[str]) -> None:
    run(FakeSegmenter(), batch())
    names = HEADER.split()
    assert names == [
        *("Class", "Images", "Instances", "Box(P", "R", "mAP50", "mAP50-95)"),
        *("Mask(P", "R", "mAP50", "mAP50-95)"),
    ]
    rows = [line.split() for line in logged if line.split()[0] in ("all", "cell", "plate")]
    assert [row[:3] for row in rows] == [["all", "2", "3"], ["cell", "2", "2"], ["plate", "2", "1"]]
    assert all(len(row) == len(names) for row in rows)


@pytest.mark.parametrize("overlap", [False, True])
def test_images_without_labels_and_detections_give_zeros(overlap: bool) -> None:
    assert run(FakeSegmenter(objects=[]), batch(overlap=overlap, labelled=False)).metrics == (0,) * 8
    assert run(FakeSegmenter(), batch(overlap=overlap, labelled=False)).metrics == (0,) * 8
    assert run(FakeSegmenter(objects=[]), batch(overlap=overlap)).metrics == (0,) * 8


def test_files_of_a_validation_contain_the_masks_of_the_image(tmp_path: Path) -> None:
    options = OutputOptions(tmp_path, save_txt=True, save_conf=True, save_json=True, json_stem="tiny")
    run(FakeSegmenter(), batch(), outputs=options)

    lines = [
        [float(word) for word in line.split()]
        for line in (tmp_path / "labels/0.txt").read_text().splitlines()
    ]
    assert [(row[0], row[-1]) for row in lines] == [(0, pytest.approx(0.9)), (1, pytest.approx(0.89))]
    for row, (_, _, *edges) in zip(lines, OBJECTS[:2], strict=True):
        points = np.array(row[1:-1]).reshape(-1, 2) * 2 * SIDE
        found = [*points.min(0), *(points.max(0) + 1)]
        np.testing.assert_allclose(found, np.array(edges) * 2, atol=1)  # the files have twice the size

    entries = json.loads((tmp_path / "tiny_predictions.json").read_text())
    assert [entry["image_id"] for entry in entries] == [0, 0, 1]
    for entry, (_, _, *edges) in zip(entries, OBJECTS, strict=True):
        mask = decode_rle(entry["segmentation"])
        x1, y1, x2, y2 = (2 * edge for edge in edges)
        assert mask.shape == (128, 128) and mask.sum() == pytest.approx((x2 - x1) * (y2 - y1), rel=0.1)
        assert mask[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].all()


def test_images_of_several_processes_are_measured_together() -> None:
    kept: list[Any] = []

    def gather(own: Any) -> list[Any]:
        kept.append(own)
        return [own]

    whole = run(FakeSegmenter(shift=8), batch(), batch(), gather=gather)
    first = run(FakeSegmenter(shift=8), batch(), gather=gather)
    joined = run(FakeSegmenter(shift=8), batch(), gather=lambda own: [kept[1], own])
    assert joined.metrics == whole.metrics and (joined.seen, first.seen) == (4, 2)
