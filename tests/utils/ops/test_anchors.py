"""Anchors: the numbers of the original on real labels, and a search that depends on its seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.known import SHARED, arrays, golden, needs_shared
from utils.ops.anchors import AnchorFit, anchor_fit, check_anchors, kmean_anchors, label_sizes

GOLDEN = golden("11_autoanchor")
DEFAULT = np.array(GOLDEN["default_anchors"])
STRIDES = (8, 16, 32)


def bccd_labels() -> list[np.ndarray]:
    files = sorted((SHARED / "data" / "bccd" / "labels" / "train").glob("*.txt"))
    return [np.loadtxt(file, ndmin=2, dtype=np.float32) for file in files]


def bccd_sizes(imgsz: int, scales: np.ndarray | None = None) -> np.ndarray:
    labels = bccd_labels()
    assert len(labels) == GOLDEN["data"]["images"]
    return label_sizes(np.tile(GOLDEN["data"]["shapes_unique"][0], (len(labels), 1)), labels, imgsz, scales)


def poorly_fitting_labels() -> tuple[np.ndarray, list[np.ndarray]]:
    """Return twenty images with objects 30 to 120 times wider than high."""
    known = GOLDEN["poorfit"]
    shapes = np.tile(known["shape_wh"], (known["images"], 1))
    return shapes, list(arrays("11_autoanchor")["poorfit/labels"])


def assert_equal(ours: AnchorFit, expected: dict[str, float]) -> None:
    for key in AnchorFit._fields:
        assert getattr(ours, key) == pytest.approx(expected[key], abs=1e-4), key


@needs_shared
@pytest.mark.parametrize("name", GOLDEN["metric"])
def test_the_fit_of_the_default_anchors_equals_the_original(name: str) -> None:
    imgsz, thr = int(name[3:6]), float(name.split("thr")[1])
    expected = GOLDEN["metric"][name]
    assert_equal(anchor_fit(bccd_sizes(imgsz), DEFAULT, thr), expected["no_scale"])
    scales = np.random.RandomState(0).uniform(0.9, 1.1, GOLDEN["data"]["images"])
    assert_equal(anchor_fit(bccd_sizes(imgsz, scales), DEFAULT, thr), expected["scale_seed0"])


@needs_shared
@pytest.mark.parametrize("name", [name for name in GOLDEN["kmeans"] if name.startswith("img320")])
def test_kmean_anchors_are_as_good_as_those_of_the_original(name: str) -> None:
    expected, wh = GOLDEN["kmeans"][name], bccd_sizes(320)
    ours = kmean_anchors(wh, int(name.split("/n")[1]), 320, gen=expected["gen"])
    assert ours.shape == np.shape(expected["anchors"])
    assert (np.diff(ours.prod(1)) >= 0).all()
    fit = anchor_fit(wh, ours, 4.0)
    assert fit.fitness >= expected["result"]["fitness"] - 0.01
    assert fit.bpr >= expected["result"]["bpr"] - 0.002


@needs_shared
def test_good_anchors_are_kept() -> None:
    labels = bccd_labels()
    shapes = np.tile([640, 480], (len(labels), 1))
    found, line = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES, 640)
    assert found is None
    assert "5.7" in line
    assert "1.000 Best Possible Recall" in line


def test_poor_anchors_are_replaced_by_ones_as_good_as_those_of_the_original() -> None:
    shapes, labels = poorly_fitting_labels()
    expected = GOLDEN["poorfit"]
    wh = label_sizes(shapes, labels, expected["img_size"])
    assert_equal(anchor_fit(wh, DEFAULT, 4.0), expected["before"])
    found, line = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES, expected["img_size"])
    assert found is not None
    assert found.shape == (3, 3, 2)
    assert (np.diff(found.reshape(-1, 2).prod(1)) >= 0).all()
    fit = anchor_fit(wh, found.reshape(-1, 2), 4.0)
    assert fit.fitness >= expected["after"]["fitness"] - 0.01
    assert fit.bpr >= expected["after"]["bpr"] - 0.002
    assert "New anchors" in line


def test_new_anchors_are_sorted_as_the_strides_are() -> None:
    shapes, labels = poorly_fitting_labels()
    found, _ = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES[::-1], 640)
    assert found is not None
    assert (np.diff(found.prod(2).mean(1)) < 0).all()


def global_state() -> np.ndarray:
    state: Any = np.random.get_state()
    return state[1]


def test_the_search_depends_on_its_seed_alone() -> None:
    wh = label_sizes(*poorly_fitting_labels(), 640)
    before = global_state().copy()
    once, again, other = (kmean_anchors(wh, 6, gen=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    np.testing.assert_array_equal(global_state(), before)


def test_placeholder_anchors_are_replaced() -> None:
    shapes, labels = poorly_fitting_labels()
    placeholders = np.tile(np.arange(6.0).reshape(3, 2), (3, 1, 1))
    found, _ = check_anchors(shapes, labels, placeholders, STRIDES, 640)
    assert found is not None
    assert (found >= 2).all()


def test_fewer_labels_than_anchors_give_usable_anchors() -> None:
    found = kmean_anchors(np.array([[30.0, 40], [300, 200]]), 9, 640, gen=50)
    assert found.shape == (9, 2)
    assert (found >= 2).all()


@pytest.mark.parametrize("labels", [[], [np.zeros((0, 5), np.float32)] * 2])
def test_without_labels_the_anchors_are_kept(labels: list[np.ndarray]) -> None:
    shapes = np.full((len(labels), 2), 640)
    found, line = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES, 640)
    assert found is None
    assert "no labels" in line
