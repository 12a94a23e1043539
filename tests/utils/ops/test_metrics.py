"""Matching and AP: the numbers of the original, the rule of COCO, and empty datasets."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.known import arrays, golden
from utils.ops.metrics import MatchRule, match_predictions
from utils.ops.precision import APResult, ap_per_class, compute_ap, fitness, smooth

GOLDEN = arrays("06_metrics")
SCALARS = golden("06_metrics")
IOUV = torch.linspace(0.5, 0.95, 10)


def ap_of(name: str) -> APResult:
    tp, conf, found, labels = (GOLDEN[f"{name}/{key}"] for key in ("tp", "conf", "pred_cls", "target_cls"))
    names = {int(key): str(value) for key, value in SCALARS["ap_cases"][name]["names"].items()}
    return ap_per_class(tp, conf, found, labels, names=names)


@pytest.mark.parametrize("name", SCALARS["ap_cases"])
def test_average_precision_equals_the_original(name: str) -> None:
    ours, expected = ap_of(name), SCALARS["ap_cases"][name]
    assert ours.classes.tolist() == expected["unique_classes"]
    assert ours.classes.dtype.kind == "i"
    for key in ("tp", "fp", "p", "r", "f1", "ap"):
        np.testing.assert_allclose(getattr(ours, key), expected[key], atol=1e-6, err_msg=key)
    assert ours.ap[:, 0].mean() == pytest.approx(expected["map50"], abs=1e-6)
    assert ours.ap.mean() == pytest.approx(expected["map50_95"], abs=1e-6)
    for curve in (ours.p_curve, ours.r_curve, ours.f1_curve, ours.prec_values):
        assert curve.shape == (len(ours.classes), len(ours.px))


def test_a_small_example() -> None:
    tp = np.array([[1, 1], [1, 0], [0, 0], [1, 1], [0, 0], [1, 0]], bool)
    conf = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    ours = ap_per_class(tp, conf, np.array([0, 0, 0, 1, 1, 0]), np.array([0, 0, 0, 1, 1]))
    np.testing.assert_allclose(ours.ap, [[0.9125, 0.4179125], [0.6225, 0.6225]], atol=1e-7)
    np.testing.assert_allclose(ours.p, [0.7084585, 0.7477477], atol=1e-7)
    np.testing.assert_allclose(ours.r, [0.8338338, 0.5], atol=1e-7)
    np.testing.assert_allclose(ours.f1, [0.7660502, 0.5992780], atol=1e-7)
    assert (ours.tp.tolist(), ours.fp.tolist()) == ([3, 1], [1, 0])
    ap, _, _ = compute_ap(np.array([0.5, 0.5, 1]), np.array([1, 0.5, 0.6667]))
    assert ap == pytest.approx(0.82835, abs=1e-5)


@pytest.mark.parametrize("case", SCALARS["compute_ap"].values())
def test_the_envelope_equals_the_original(case: dict[str, Any]) -> None:
    ap, envelope, recalls = compute_ap(np.array(case["recall"]), np.array(case["precision"], float))
    assert ap == pytest.approx(case["ap"], abs=1e-9)
    assert envelope.tolist() == pytest.approx(case["mpre"])
    assert recalls.tolist() == pytest.approx(case["mrec"])


def test_smoothing_and_fitness_equal_the_original() -> None:
    known = SCALARS["smooth"]
    np.testing.assert_allclose(smooth(np.array(known["y"]), known["f"]), known["out"], atol=1e-12)
    known = SCALARS["fitness"]
    np.testing.assert_allclose([fitness(row[2], row[3]) for row in known["x"]], known["out"], atol=1e-12)
    assert fitness(*known["x"][0][2:4]) == pytest.approx(known["out"][0])


def test_metrics_have_class_names() -> None:
    assert ap_of("three_classes").names == ("a", "b", "c")
    assert ap_per_class(np.zeros((0, 10)), np.zeros(0), np.zeros(0), np.array([4])).names == ("4",)


@pytest.mark.parametrize(("found", "labels"), [(0, 0), (0, 3), (3, 0)])
def test_no_detections_or_no_labels_give_zeros(found: int, labels: int) -> None:
    ours = ap_per_class(np.ones((found, 10), bool), np.ones(found), np.zeros(found), np.zeros(labels))
    assert ours.ap.shape == (1 if labels else 0, 10)
    for metric in (ours.ap, ours.p, ours.r, ours.f1, ours.tp, ours.fp):
        assert not metric.any()


def test_detections_of_classes_without_labels_are_counted_separately() -> None:
    tp = np.ones((3, 1), bool)
    ours = ap_per_class(tp, np.array([0.9, 0.8, 0.7]), np.array([0, 7, 7]), np.array([0]))
    assert ours.classes.tolist() == [0]
    assert (ours.p[0], ours.stray) == (1, 2)


@pytest.mark.parametrize("name", SCALARS["process_batch"])
def test_matches_equal_the_original(name: str) -> None:
    found, labels = (torch.from_numpy(GOLDEN[f"{name}/{key}"]) for key in ("detections", "labels"))
    correct = match_predictions(found, labels, IOUV)
    assert correct.dtype == torch.bool
    np.testing.assert_array_equal(correct.numpy(), GOLDEN[f"{name}/correct"].astype(bool))


def rows(*boxes: tuple[float, ...]) -> Tensor:
    return torch.tensor(boxes)


def test_the_two_rules_differ_where_boxes_overlap() -> None:
    """Both detections overlap the first label most; the second detection also overlaps the second label."""
    labels = rows((0, 0, 0, 10, 10), (0, 3, 0, 13, 10))
    found = rows((0, 0, 10, 10, 0.9, 0), (1, 0, 11, 10, 0.8, 0))
    assert match_predictions(found, labels, IOUV[:1]).tolist() == [[True], [False]]
    assert match_predictions(found, labels, IOUV[:1], rule="coco").tolist() == [[True], [True]]


def coco_by_definition(found: Tensor, labels: Tensor, least: float) -> list[bool]:
    from utils.ops.boxes import box_iou

    overlap = box_iou(found[:, :4], labels[:, 1:]) * (found[:, 5:6] == labels[:, 0])
    taken: set[int] = set()
    correct = []
    for row in overlap:
        free = [(iou.item(), j) for j, iou in enumerate(row) if j not in taken and iou >= least]
        correct.append(bool(free))
        if free:
            taken.add(max(free)[1])
    return correct


@pytest.mark.parametrize("name", ["mid", "dense", "ambiguous", "no_overlap"])
def test_the_coco_rule_is_greedy_by_confidence(name: str) -> None:
    found, labels = (torch.from_numpy(GOLDEN[f"{name}/{key}"]) for key in ("detections", "labels"))
    found = found[found[:, 4].argsort(descending=True)]
    ours = match_predictions(found, labels, IOUV, rule="coco")
    for level, least in enumerate(IOUV):
        assert ours[:, level].tolist() == coco_by_definition(found, labels, least.item())


def test_a_label_has_one_match() -> None:
    found = rows(*[(0, 0, 10, 10, 0.9, 0)] * 5)
    rules: tuple[MatchRule, ...] = ("legacy", "coco")
    for rule in rules:
        correct = match_predictions(found, rows((0, 0, 0, 10, 10)), IOUV, rule)
        assert correct.sum(0).tolist() == [1] * 10
        assert correct[0].all()


@pytest.mark.parametrize(("n", "m"), [(0, 0), (0, 2), (2, 0)])
def test_empty_images_have_no_matches(n: int, m: int) -> None:
    assert match_predictions(torch.zeros(n, 6), torch.zeros(m, 5), IOUV).tolist() == [[False] * 10] * n
