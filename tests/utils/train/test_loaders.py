"""Weights of classes and images, compared with the original's (golden 08)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.known import golden
from utils.train.loaders import class_weights, image_weights

CASE = golden("08_schedules")["class_weights"]
LABELS = [np.array([[c, 0.5, 0.5, 0.1, 0.1] for c in classes]) for classes in CASE["classes_per_image"]]


def test_weights_equal_the_original() -> None:
    assert class_weights(LABELS, CASE["nc"]) == pytest.approx(CASE["weights"], rel=1e-6)
    assert image_weights(LABELS, CASE["nc"]) == pytest.approx(CASE["image_weights"], rel=1e-6)


def test_a_class_with_a_high_map_weighs_less() -> None:
    maps = np.array([0.9, 0, 0, 0, 0])

    assert image_weights(LABELS, 5, maps)[0] < image_weights(LABELS, 5)[0]
    assert image_weights(LABELS, 5, maps)[2] == image_weights(LABELS, 5)[2]


def test_images_without_objects_have_weight_zero() -> None:
    assert image_weights([np.zeros((0, 5), np.float32)], 3).tolist() == [0.0]
