"""Drawn images of the control of context: nothing but the distant dot distinguishes the classes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.utils.data.test_shapes import content
from utils.base.paths import ROOT
from utils.base.seeds import generator
from utils.base.yaml_io import read_yaml
from utils.data.context import COLOURS, FARTHEST, NAMES, SIZE, draw_context, make_context
from utils.data.scan import load_labels
from utils.data.shapes import MARKER

DISTANCES = (0, 24, 80, 160, FARTHEST)


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_dot_is_at_its_distance_in_the_same_row(distance: int) -> None:
    for number in range(10):
        image, rows = draw_context(generator(0, number), distance)
        assert image.shape == (SIZE, SIZE, 3) and 4 <= len(rows) <= 9
        for kind, x, y, width, height in rows:
            left, top = round(x * SIZE) - distance, round(y * SIZE)
            assert tuple(image[top, left]) == COLOURS[int(kind)]
            assert width == height and x - width / 2 >= 0 and x + width / 2 <= 1
        apart = np.diff(np.sort(rows[:, 2] * SIZE))
        assert apart.min() >= 23.9 and apart.max() <= 40.1


@pytest.mark.parametrize("distance", DISTANCES)
def test_only_the_dots_differ_between_the_classes(distance: int) -> None:
    """The same image with all classes exchanged: the labels' boxes and all pixels but the dots stay."""
    for number in range(10):
        image, rows = draw_context(generator(1, number), distance)
        other, exchanged = draw_context(generator(1, number), distance, 1 - rows[:, 0])
        assert np.array_equal(rows[:, 1:], exchanged[:, 1:])
        assert np.array_equal(rows[:, 0], 1 - exchanged[:, 0])
        changed = np.argwhere((image != other).any(2))
        dots = np.stack((rows[:, 2] * SIZE, rows[:, 1] * SIZE - distance), 1)
        reach = np.abs(changed[:, None] - dots[None]).max(2).min(1)
        assert len(changed) and reach.max() <= 3.01


def test_classes_are_balanced_and_follow_from_no_coordinate() -> None:
    rows = np.concatenate([draw_context(generator(2, number), 160)[1] for number in range(400)])
    assert abs(rows[:, 0].mean() - 0.5) < 0.04
    for coordinate in (1, 2):
        assert abs(np.corrcoef(rows[:, 0], rows[:, coordinate])[0, 1]) < 0.06


def test_the_dataset_is_drawn_again_only_for_another_distance(tmp_path: Path) -> None:
    root = make_context(tmp_path / "set", 160, train=4, val=2)
    first = content(root)
    assert content(make_context(tmp_path / "set", 160, train=4, val=2)) == first
    assert content(make_context(tmp_path / "again", 160, train=4, val=2)) == first
    files = load_labels([root / "images/train"])
    assert len(files.images) == 4 and (files.labels.counts > 3).all()
    make_context(root, 80, train=4, val=2)
    assert json.loads((root / MARKER).read_text())["distance"] == 80


@pytest.mark.parametrize(("name", "distance"), [("context.yaml", 160), ("context-near.yaml", 0)])
def test_the_yamls_name_the_classes_in_order(name: str, distance: int) -> None:
    yaml = read_yaml(ROOT / "data" / name)
    assert tuple(yaml["names"].values()) == NAMES and yaml["distance"] == distance
