"""Confusion matrix: the counts of the original with `legacy`, every false positive by default."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.known import arrays, golden
from utils.ops.metrics import ConfusionMatrix

GOLDEN = arrays("06_metrics")
CASES = golden("06_metrics")["confusion"]
FOUND = torch.tensor(
    [
        [0, 0, 10, 10, 0.9, 0],
        [0, 0, 10, 10, 0.8, 1],
        [50, 50, 60, 60, 0.3, 1],
        [0, 0, 1, 1, 0.2, 0],
    ]
)
LABELS = torch.tensor([[0.0, 0, 0, 10, 10], [1, 50, 50, 60, 61], [1, 80, 80, 90, 90]])


def count(name: str, legacy: bool) -> ConfusionMatrix:
    case: dict[str, Any] = CASES[name]
    stem = name.removesuffix("_then_none")
    found, labels = (torch.from_numpy(GOLDEN[f"{stem}/{key}"]) for key in ("detections", "labels"))
    matrix = ConfusionMatrix(case["nc"], case.get("conf", 0.25), case.get("iou", 0.45), legacy)
    matrix.process_batch(found, labels)
    if "second_call_labels" in case:
        matrix.process_batch(None, torch.tensor(case["second_call_labels"]))
    return matrix


@pytest.mark.parametrize("name", CASES)
def test_the_legacy_matrix_equals_the_original(name: str) -> None:
    np.testing.assert_array_equal(count(name, legacy=True).matrix, CASES[name]["matrix"])


@pytest.mark.parametrize("name", CASES)
def test_the_default_adds_false_positives_and_nothing_else(name: str) -> None:
    ours = count(name, legacy=False).matrix
    np.testing.assert_array_equal(ours[:, :-1], np.array(CASES[name]["matrix"])[:, :-1])
    found = GOLDEN[f"{name.removesuffix('_then_none')}/detections"]
    assert ours[:-1].sum() == (found[:, 4] > 0.25).sum()


def test_a_small_example() -> None:
    matrix = ConfusionMatrix(2)
    matrix.process_batch(FOUND, LABELS)
    assert matrix.matrix.tolist() == [[0, 0, 1], [1, 1, 0], [0, 1, 0]]
    tp, fp = matrix.tp_fp()
    assert (tp.tolist(), fp.tolist()) == ([0, 1], [1, 1])


def test_false_positives_in_background_images_count() -> None:
    ours, legacy = ConfusionMatrix(2), ConfusionMatrix(2, legacy=True)
    for matrix in (ours, legacy):
        matrix.process_batch(FOUND, torch.zeros(0, 5))
    assert ours.matrix.tolist() == [[0, 0, 1], [0, 0, 2], [0, 0, 0]]
    assert not legacy.matrix.any()


def test_labels_of_images_without_detections_are_false_negatives() -> None:
    for found in (None, torch.zeros(0, 6)):
        matrix = ConfusionMatrix(2)
        matrix.process_batch(found, LABELS)
        assert matrix.matrix.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 0]]


def test_counts_add_up_over_images() -> None:
    matrix = ConfusionMatrix(2)
    for _ in range(3):
        matrix.process_batch(FOUND, LABELS)
    assert matrix.matrix.tolist() == [[0, 0, 3], [3, 3, 0], [0, 3, 0]]
