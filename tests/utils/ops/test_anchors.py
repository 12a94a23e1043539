"""Anchors: the original's figures on real labels, and a search that depends on its seed alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.known import SHARED, arrays, golden, needs_shared
from utils.ops.anchors import AnchorFit, anchor_fit, check_anchors, kmean_anchors, label_sizes

FACTS = golden("11_autoanchor")
DEFAULT = np.array(FACTS["default_anchors"])
STRIDES = (8, 16, 32)


def bccd_labels() -> list[np.ndarray]:
    files = sorted((SHARED / "data" / "bccd" / "labels" / "train").glob("*.txt"))
    return [np.loadtxt(file, ndmin=2, dtype=np.float32) for file in files]


def bccd_sizes(imgsz: int, scales: np.ndarray | None = None) -> np.ndarray:
    labels = bccd_labels()
    assert len(labels) == FACTS["data"]["images"]
    return label_sizes(np.tile(FACTS["data"]["shapes_unique"][0], (len(labels), 1)), labels, imgsz, scales)


def poor_set() -> tuple[np.ndarray, list[np.ndarray]]:
    """Twenty images with objects 30 to 120 times wider than high."""
    known = FACTS["poorfit"]
    shapes = np.tile(known["shape_wh"], (known["images"], 1))
    return shapes, list(arrays("11_autoanchor")["poorfit/labels"])


def same(ours: AnchorFit, wanted: dict[str, float]) -> None:
    for key in AnchorFit._fields:
        assert getattr(ours, key) == pytest.approx(wanted[key], abs=1e-4), key


@needs_shared
@pytest.mark.parametrize("name", FACTS["metric"])
def test_the_fit_of_the_default_anchors_equals_the_original(name: str) -> None:
    imgsz, thr = int(name[3:6]), float(name.split("thr")[1])
    wanted = FACTS["metric"][name]
    same(anchor_fit(bccd_sizes(imgsz), DEFAULT, thr), wanted["no_scale"])
    scales = np.random.RandomState(0).uniform(0.9, 1.1, FACTS["data"]["images"])
    same(anchor_fit(bccd_sizes(imgsz, scales), DEFAULT, thr), wanted["scale_seed0"])


@needs_shared
@pytest.mark.parametrize("name", [name for name in FACTS["kmeans"] if name.startswith("img320")])
def test_found_anchors_are_as_good_as_the_original_s(name: str) -> None:
    wanted, wh = FACTS["kmeans"][name], bccd_sizes(320)
    ours = kmean_anchors(wh, int(name.split("/n")[1]), 320, gen=wanted["gen"])
    assert ours.shape == np.shape(wanted["anchors"])
    assert (np.diff(ours.prod(1)) >= 0).all()
    fit = anchor_fit(wh, ours, 4.0)
    assert fit.fitness >= wanted["result"]["fitness"] - 0.01
    assert fit.bpr >= wanted["result"]["bpr"] - 0.002


@needs_shared
def test_good_anchors_stay() -> None:
    labels = bccd_labels()
    shapes = np.tile([640, 480], (len(labels), 1))
    found, line = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES, 640)
    assert found is None
    assert "5.7" in line
    assert "1.000 Best Possible Recall" in line


def test_poor_anchors_are_replaced_by_some_as_good_as_the_original_s() -> None:
    shapes, labels = poor_set()
    wanted = FACTS["poorfit"]
    wh = label_sizes(shapes, labels, wanted["img_size"])
    same(anchor_fit(wh, DEFAULT, 4.0), wanted["before"])
    found, line = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES, wanted["img_size"])
    assert found is not None
    assert found.shape == (3, 3, 2)
    assert (np.diff(found.reshape(-1, 2).prod(1)) >= 0).all()
    fit = anchor_fit(wh, found.reshape(-1, 2), 4.0)
    assert fit.fitness >= wanted["after"]["fitness"] - 0.01
    assert fit.bpr >= wanted["after"]["bpr"] - 0.002
    assert "New anchors" in line


def test_levels_follow_the_order_of_the_strides() -> None:
    shapes, labels = poor_set()
    found, _ = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES[::-1], 640)
    assert found is not None
    assert (np.diff(found.prod(2).mean(1)) < 0).all()


def global_state() -> np.ndarray:
    state: Any = np.random.get_state()
    return state[1]


def test_the_search_depends_on_its_seed_alone() -> None:
    wh = label_sizes(*poor_set(), 640)
    before = global_state().copy()
    once, again, other = (kmean_anchors(wh, 6, gen=20, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(once, again)
    assert not np.array_equal(once, other)
    np.testing.assert_array_equal(global_state(), before)


def test_placeholders_are_replaced() -> None:
    shapes, labels = poor_set()
    placeholders = np.tile(np.arange(6.0).reshape(3, 2), (3, 1, 1))
    found, _ = check_anchors(shapes, labels, placeholders, STRIDES, 640)
    assert found is not None
    assert (found >= 2).all()


def test_fewer_labels_than_anchors_give_usable_anchors() -> None:
    found = kmean_anchors(np.array([[30.0, 40], [300, 200]]), 9, 640, gen=50)
    assert found.shape == (9, 2)
    assert (found >= 2).all()


@pytest.mark.parametrize("labels", [[], [np.zeros((0, 5), np.float32)] * 2])
def test_without_labels_the_anchors_stay(labels: list[np.ndarray]) -> None:
    shapes = np.full((len(labels), 2), 640)
    found, line = check_anchors(shapes, labels, DEFAULT.reshape(3, 3, 2), STRIDES, 640)
    assert found is None
    assert "no labels" in line
