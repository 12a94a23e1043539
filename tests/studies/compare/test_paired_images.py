"""Comparisons over images: the same mAP as val.py, and known differences."""

from __future__ import annotations

import numpy as np
import pytest

from studies.compare.paired_images import Scorer, compare_images, pair_of
from utils.ops.precision import ap_per_class
from utils.val.accumulator import DetectionMatches

DRAW = np.random.default_rng(5)


def simulate(skill: float, images: int = 30, draw: np.random.Generator = DRAW) -> DetectionMatches:
    """Detections of a model that is right with probability `skill`, with a higher confidence if right."""
    labels = np.repeat(np.arange(images), 4)
    classes = np.tile([0, 1, 0, 1], images)
    right = draw.random(len(labels)) < skill
    confidence = np.clip(draw.normal(0.6, 0.2, len(labels)) + 0.1 * right, 0.01, 1)
    correct = right[:, None] & (draw.random((len(labels), 1)) > np.linspace(0, 0.9, 10))
    boxes = np.tile(np.float32([0, 0, 10, 10]), (len(labels), 1))
    return DetectionMatches(correct, confidence, classes, labels, classes, labels, boxes, boxes, images)


def test_with_unit_weights_the_map_is_that_of_val() -> None:
    matches = simulate(0.7)
    ap = ap_per_class(matches.correct, matches.confidence, matches.found, matches.true).ap
    classes = ap.mean(1)
    assert Scorer(matches)(np.ones(30, int)) == pytest.approx([ap[:, 0].mean(), ap.mean(), *classes])


def test_an_image_of_weight_two_counts_twice() -> None:
    matches = simulate(0.7)
    chosen = np.r_[np.arange(30), 4]
    rows = np.concatenate([np.flatnonzero(matches.image == i) for i in chosen])
    ap = ap_per_class(
        *(x[rows] for x in (matches.correct, matches.confidence, matches.found, matches.true))
    ).ap
    weights = np.bincount(chosen)
    assert Scorer(matches)(weights)[1] == pytest.approx(ap.mean(), abs=1e-3)  # ties of confidence


def test_a_model_does_not_differ_from_itself() -> None:
    matches = simulate(0.7)
    for pair in compare_images(pair_of(matches, matches), 100):
        assert (pair.mean, pair.low, pair.high, pair.p) == (0, 0, 0, 1)


def test_a_large_difference_is_significant() -> None:
    _, pair, *_ = compare_images(pair_of(simulate(0.4), simulate(0.9)), 200)
    assert pair.mean > 0.1 and pair.low > 0 and pair.p < 0.05 and pair.n == 30


def test_the_error_level_is_five_percent() -> None:
    """19 exchanges suffice: p is at most 1/20 if the observed difference is the largest of 20."""
    draw = np.random.default_rng(8)
    found = 0
    for seed in range(500):
        _, pair, *_ = compare_images(pair_of(simulate(0.6, 12, draw), simulate(0.6, 12, draw)), 19, seed)
        found += pair.p <= 0.05
    assert 0.03 <= found / 500 <= 0.07  # 0.05 +- 2 standard errors


def test_different_images_are_an_error() -> None:
    with pytest.raises(ValueError, match="same images"):
        pair_of(simulate(0.5, 10), simulate(0.5, 11))
