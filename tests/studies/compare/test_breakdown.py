"""AP by object size and the cost of errors, on matches with planted effects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from studies.compare.breakdown import ap_by_image, ap_by_size, error_costs, matched_labels
from studies.compare.metrics import KINDS, SIZES
from tests.known import SHARED, needs_shared
from utils.ops.metrics import MatchRule
from utils.val.accumulator import DetectionMatches, MatchAccumulator
from utils.val.measure import measure
from utils.val.val_options import options_from

DRAW = np.random.default_rng(7)
IMAGES, SPACING = 40, 200  # objects do not touch each other
SIDES = (20, 60, 120)  # small, medium and large for COCO
Rows = list[list[float]]


def truth(image: int) -> Rows:
    """Labels of an image: one object of each size and class."""
    return [
        [cls, column * SPACING, cls * SPACING, column * SPACING + side, cls * SPACING + side]
        for cls in (0, 1)
        for column, side in enumerate(SIDES)
    ]


def found(
    label: Sequence[float], confidence: float = 0.9, shift: float = 0.0, cls: int | None = None
) -> list[float]:
    """A detection of a label, moved by a fraction of its side."""
    of_class, x1, y1, x2, y2 = label
    moved = shift * (x2 - x1)
    return [x1 + moved, y1, x2 + moved, y2, confidence, of_class if cls is None else cls]


def matches(images: Sequence[tuple[Rows, Rows]], rule: MatchRule = "legacy") -> DetectionMatches:
    """Matches of images, each of detections and labels."""
    accumulator = MatchAccumulator(2, rule)
    for detections, labels in images:
        rows = torch.tensor(detections).reshape(-1, 6)
        accumulator.add(rows[rows[:, 4].argsort(descending=True)], torch.tensor(labels).reshape(-1, 5))
        accumulator.end_batch([f"/data/images/{accumulator.seen}.jpg"])
    return accumulator.matches()


def planted(kind: str, share: float = 0.5) -> DetectionMatches:
    """Detections that are right, but for a share of errors of one kind."""
    images = []
    for image in range(IMAGES):
        labels, rows = truth(image), []
        for label in labels:
            wrong = DRAW.random() < share
            if not wrong or kind == "duplicate":
                rows.append(found(label))
            if wrong and kind != "missed":
                rows.append(
                    {
                        "class": found(label, 0.95, cls=int(1 - label[0])),
                        "location": found(label, 0.95, shift=0.5),
                        "both": found(label, 0.95, shift=0.5, cls=int(1 - label[0])),
                        "duplicate": found(label, 0.95),
                        "background": [900, 900, 950, 950, 0.95, label[0]],
                    }[kind]
                )
        images.append((rows, labels))
    return matches(images)


@pytest.mark.parametrize("kind", KINDS)
def test_planted_errors_are_found(kind: str) -> None:
    """The other kinds cost nothing, but for the objects that errors leave unfound."""
    costs = error_costs(planted(kind))
    assert set(costs) == set(KINDS)
    assert max(costs, key=lambda name: costs[name]) == kind and costs[kind] > 0.05
    leave_objects = {"both": {"missed"}, "background": {"missed"}}
    for name in set(KINDS) - {kind} - leave_objects.get(kind, set()):
        assert costs[name] == pytest.approx(0, abs=1e-9), name


def test_duplicates_cost_what_they_push_down() -> None:
    """A duplicate costs nothing below all correct detections; above others it costs precision."""
    labels = truth(0)
    rows = [found(label, 0.9 - 0.1 * index) for index, label in enumerate(labels)]
    above = [*rows, found(labels[0], 0.85)]
    assert error_costs(matches([(rows, labels)]))["duplicate"] == 0
    costs = error_costs(matches([(above, labels)]))
    assert costs["duplicate"] > 0.05 and sum(costs.values()) == pytest.approx(costs["duplicate"])


def test_of_two_errors_at_one_label_one_is_corrected_and_the_other_removed() -> None:
    labels = truth(0)[:1]
    rows = [found(labels[0], 0.9, shift=0.4), found(labels[0], 0.8, shift=0.5)]
    assert error_costs(matches([(rows, labels)]))["location"] == pytest.approx(1, abs=0.006)


def test_without_detections_all_labels_are_missed() -> None:
    """Without detections every label is missed, and removing the errors leaves nothing to do."""
    costs = error_costs(matches([([], truth(0))]))
    assert costs == pytest.approx(dict.fromkeys(KINDS, 0.0) | {"missed": 1.0})


@pytest.mark.parametrize("size", SIZES[:3])
def test_planted_size_effects_are_found(size: str) -> None:
    """Objects of one size are found half of the time, the others always."""
    side = SIDES[SIZES.index(size)]
    images = []
    for image in range(IMAGES):
        labels = truth(image)
        kept = [label for label in labels if label[3] - label[1] != side or DRAW.random() < 0.5]
        images.append(([found(label) for label in kept], labels))
    by_size = ap_by_size(matches(images))
    assert set(by_size) >= set(SIZES[:3])
    assert by_size.pop(size) == pytest.approx(0.75, abs=0.12)  # the original's AP of half the objects
    assert all(by_size[other] > 0.99 for other in SIZES[:3] if other != size)


def test_detections_of_other_sizes_are_ignored() -> None:
    """False positives of one size lower the AP of that size only."""
    labels = truth(0)
    false = [[900.0, 900.0, 900.0 + side, 900.0 + side, 0.95, 0.0] for side in (10, 20, 25)]
    by_size = ap_by_size(matches([([found(label) for label in labels] + false, labels)]))
    assert by_size["small"] < 0.9
    assert by_size["medium"] == by_size["large"] == pytest.approx(0.995, abs=0.01)


def test_quartiles_have_a_quarter_of_the_labels_each() -> None:
    """The smallest quarter is missed altogether."""
    sides = np.arange(10, 50)
    labels = [[0.0, 0.0, 0.0, float(side), float(side)] for side in sides]
    rows = [[] if index < 10 else [found(label)] for index, label in enumerate(labels)]
    by_size = ap_by_size(
        matches([(found_rows, [label]) for found_rows, label in zip(rows, labels, strict=True)])
    )
    assert by_size["quartile 1"] == 0
    assert all(by_size[f"quartile {number}"] > 0.99 for number in (2, 3, 4))
    assert "large" not in by_size


@pytest.mark.parametrize("rule", ["legacy", "coco"])
def test_matched_labels_are_those_of_the_rule(rule: MatchRule) -> None:
    """Random boxes: a detection has a label exactly where it is correct, and no label is used twice."""
    images = []
    for _ in range(20):
        corners = DRAW.uniform(0, 60, (8, 2))
        boxes = np.concatenate((corners, corners + DRAW.uniform(20, 60, (8, 2))), 1)
        labels = [[int(DRAW.integers(2)), *box] for box in boxes]
        near = boxes[DRAW.integers(8, size=30)] + DRAW.normal(0, 4, (30, 4))
        images.append(([[*box, DRAW.random(), int(DRAW.integers(2))] for box in near], labels))
    one = matches(images, rule)
    label = matched_labels(one)
    assert np.array_equal(label >= 0, one.correct) and one.correct.sum() > 50
    for level in label.T:
        used = level[level >= 0]
        assert len(np.unique(used)) == len(used)
    rows, levels = np.nonzero(one.correct)
    assert np.array_equal(one.found[rows], one.true[label[rows, levels]])
    assert np.array_equal(one.image[rows], one.true_image[label[rows, levels]])


def test_the_ap_of_an_image_is_its_own() -> None:
    labels = truth(0)
    images = [([found(label) for label in labels], labels), ([], labels), ([found(labels[0])], [])]
    by_image = ap_by_image(matches(images))
    assert by_image == {"/data/images/1.jpg": pytest.approx(0.995, abs=0.01), "/data/images/2.jpg": 0.0}
    assert ap_by_image(replace(matches(images), paths=())) == {}


def test_a_dataset_without_labels_has_no_sizes() -> None:
    nothing = matches([([[0, 0, 9, 9, 0.5, 0]], [])])
    assert ap_by_size(nothing) == {}
    assert error_costs(nothing) == dict.fromkeys(KINDS, 0.0)


@pytest.fixture(scope="module")
def of_bccd() -> DetectionMatches:
    """Matches of a trained model on the val split of BCCD."""
    weights, data = SHARED / "weights" / "bccd_yolov5n.pt", SHARED / "data" / "bccd.yaml"
    keywords = {"imgsz": 320, "match": "coco", "workers": 0, "device": "cpu"}
    found: DetectionMatches = measure(
        options_from({"weights": str(weights), "data": str(data)} | keywords)
    ).matches
    return found


@needs_shared
def test_errors_of_a_trained_model_cost_what_tidecv_says(of_bccd: DetectionMatches) -> None:
    """tidecv 1.0.1 averages precision over other points, which makes up to 0.1 points."""
    tidecv = dict(zip(KINDS, (0.365, 1.383, 0.046, 1.274, 5.004, 0.365), strict=True))
    costs = {kind: cost * 100 for kind, cost in error_costs(of_bccd).items()}
    assert costs == pytest.approx(tidecv, abs=0.1)


@needs_shared
def test_ap_by_size_is_that_of_the_coco_tools(of_bccd: DetectionMatches) -> None:
    """pycocotools 2.0.11 averages precision in steps, which makes up to 1 point."""
    tools = dict(zip(SIZES, (0.3429, 0.4004, 0.6651, 0.3567, 0.5714, 0.6010, 0.6789), strict=True))
    assert ap_by_size(of_bccd) == pytest.approx(tools, abs=0.01)
