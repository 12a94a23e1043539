"""Figure and table of receptive fields."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from studies.explain.receptive_field import FieldRow, draw_fields, field_table, measure, write_fields


def row(model: str, layer: str = "layer 9: SPPF", sigma: float = 3) -> FieldRow:
    steps = np.arange(32) - 15
    return FieldRow(
        model, layer, 32, measure(np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / 2 / sigma**2))
    )


@pytest.mark.parametrize("layers", [(1,), (1, 1, 1, 1), (3, 4)], ids=["one", "four", "several layers"])
def test_the_figure_grows_with_models_and_layers(layers: tuple[int, ...], tmp_path: Path) -> None:
    models = [[row(f"model {i}", f"layer {j}: C3") for j in range(n)] for i, n in enumerate(layers)]
    draw_fields(models, 1, tmp_path / "erf.png")
    height, width = cv2.imread(str(tmp_path / "erf.png")).shape[:2]
    panels = max(layers) * (len(layers) + 1)
    assert 300**2 * panels < height * width < 900**2 * (panels + 2)


def test_the_table_has_sides_in_pixels_and_areas_in_percent(tmp_path: Path) -> None:
    models = [[row("a")], [row("longer name", sigma=5)]]
    head, *lines = field_table(models).splitlines()
    assert head.split("  ")[0] == "model"
    assert len({len(line) for line in [head, *lines]}) == 1
    for line, (made,) in zip(lines, models, strict=True):
        for extent in made.field.extents:
            assert f" {extent.side} px" in line
            assert f" {100 * extent.area / 32**2:.2f} %" in line
    write_fields(models, tmp_path / "erf.csv")
    columns = (tmp_path / "erf.csv").read_text().splitlines()[0].split(",")
    assert columns[:7] == ["model", "layer", "stride", "height", "width", "centre_y", "centre_x"]
    assert columns[7:12] == ["side_50", "square_50", "square_fraction_50", "area_50", "area_fraction_50"]
    assert len(columns) == 7 + 3 * 5
