"""Figures of gates and heat maps: panels, titles and scales."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from studies.explain import map_figures
from studies.explain.heatmap import Heat
from studies.explain.labelled_models import ModelInput, ModelInputs
from studies.explain.layers import GateMap
from studies.explain.map_figures import draw_gates, draw_heat
from utils.sources.frame import Frame


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list:
    """Figures that would have been saved."""
    made: list = []
    monkeypatch.setattr(map_figures, "save_figure", lambda figure, path, dpi: made.append(figure))
    return made


def make_input(height: int = 60, width: int = 80) -> ModelInput:
    image = np.full((height, width, 3), 128, np.uint8)
    return ModelInputs((64, 64), 32, torch.device("cpu")).make(Frame(Path("a.jpg"), image))


def gate(block: str, low: float, high: float) -> GateMap:
    return GateMap(block, np.array([[low, high]], np.float32), low, high, 0.5)


def panels_of(figure) -> list:
    return [axes for axes in figure.axes if axes.images]


def test_blocks_with_the_same_name_share_a_scale(figures: list) -> None:
    models = [("m", [gate("x", 0, 1), gate("y", 5, 6)]), ("n", [gate("x", 0.5, 2)]), ("o", [gate("z", 1, 1)])]
    draw_gates(make_input(), models, Path("gates.png"))
    titles = {axes.get_title().split("\n")[0]: axes for axes in panels_of(figures[0])}
    assert set(titles) == {"m", "n", "o", "x", "y", "z"}
    ranges = [axes.images[-1].get_clim() for axes in panels_of(figures[0]) if len(axes.images) == 2]
    assert ranges == [(0, 2), (5, 6), (0, 2), (0.5, 1.5)]
    assert "min / mean / max 5 / 5.5 / 6\nmean |A(x) - 1| 0.5" in titles["y"].get_title()


def test_many_blocks_are_wrapped_beside_an_empty_panel(figures: list) -> None:
    draw_gates(make_input(), [("m", [gate(str(i), 0, 1) for i in range(5)])], Path("gates.png"))
    positions = [
        (axes.get_subplotspec().rowspan.start, axes.get_subplotspec().colspan.start)
        for axes in panels_of(figures[0])
    ]
    assert positions == [(0, 0), (0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]


def test_boxes_are_drawn_in_pixels_of_the_image_with_literal_names(figures: list) -> None:
    boxes = np.array([[8, 16, 24, 32, 0.9, 1], [40, 8, 64, 56, 0.5, 7]], np.float32)
    heat = Heat(np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64), boxes)
    nothing = Heat(None, np.zeros((0, 6), np.float32))
    models = [("one", heat, {1: "$a$"}), ("other", nothing, {})]
    draw_heat(make_input(), models, "title", Path("cam.png"))
    image, one, other = panels_of(figures[0])
    assert image.get_title() == "a.jpg"
    assert one.get_title() == "one\n2 boxes"
    assert other.get_title() == "other\nno boxes: nothing to explain"
    assert [text.get_text() for text in one.texts] == ["7 0.50", "$a$ 0.90"]  # the best on top
    best = one.patches[-1]
    assert (best.get_x(), best.get_width()) == (10, 20)  # 64 of the network are 80 of the image
    assert (best.get_y(), best.get_height()) == (10, 20)  # less the 8 pixels of border
    assert len(other.images) == 1 and not other.patches


def test_without_maps_a_figure_has_no_colour_bar(figures: list) -> None:
    draw_heat(make_input(), [("m", Heat(None, np.zeros((0, 6), np.float32)), {})], "title", Path("cam.png"))
    assert len(figures[0].axes) == 2  # panels, no colour bar
