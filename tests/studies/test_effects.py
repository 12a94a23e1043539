"""The overview of all studies: which effects it has, and what it says of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from studies.compare.records import Records
from studies.effects import collect, draw, table
from studies.results import rebuild


def _study(folder: Path, seeds: int, *models: tuple[str, float], data: str = "cells.yaml") -> None:
    """A study of yolov5n, with mAP50-95 of about 0.5, and of models with the given gains."""
    noise = np.random.default_rng(1).normal(0, 0.002, (len(models) + 1, seeds))
    rows: list[dict[str, Any]] = []
    for (model, gain), of_model in zip([("yolov5n", 0.0), *models], noise, strict=True):
        for seed, value in enumerate(of_model):
            row = {
                "model": model,
                "seed": seed,
                "split": "val",
                "checkpoint": "best",
                "run": f"{model}{seed}",
            }
            row |= {"P": 0.5, "R": 0.5, "mAP50": 0.8 + 2 * gain, "mAP50-95": 0.5 + gain + value}
            rows.append(row | {"flags": f"--data {data} --cfg {model}.yaml"})
    Records(rows).write(folder)


def test_the_study_with_the_most_seeds_counts(tmp_path: Path) -> None:
    _study(tmp_path / "few", 3, ("yolov5n-LSKA", 0.05), ("yolov5n-SE", 0.0))
    _study(tmp_path / "many", 6, ("yolov5n-LSKA", 0.0), ("yolov5n-LSKA --attention k=23", -0.03))
    effects = collect(tmp_path)
    assert [(one.model, one.pair.n, one.study) for one in effects] == [
        ("LSKA", 6, "many"),
        ("LSKA k=23", 6, "many"),
        ("SE", 3, "few"),
    ]


def test_the_table_says_what_the_tests_support(tmp_path: Path) -> None:
    _study(tmp_path / "a", 6, ("yolov5n-up", 0.04), ("yolov5n-down", -0.04), ("yolov5n-same", 0.0))
    _study(tmp_path / "b", 3, ("yolov5n-few", 0.04))
    lines = {line.split(" | ")[1]: line for line in table(collect(tmp_path)).splitlines()[2:]}
    assert "**better** (p = 0.000)" in lines["up"] and "**worse**" in lines["down"]
    assert "equal within 1 point" in lines["same"] and "few" not in lines
    assert "| cells | up | mAP50-95, val | 0.5" in lines["up"] and "| 6 | +4." in lines["up"]


def test_another_metric_where_the_task_is_about_the_class(tmp_path: Path) -> None:
    _study(tmp_path / "a", 5, ("yolov5n-LSKA", 0.04), data="context.yaml")
    (one,) = collect(tmp_path)
    assert one.metric == "mAP50" and one.pair.mean == pytest.approx(0.08)


def test_weights_that_are_loaded_by_key_are_left_out(tmp_path: Path) -> None:
    _study(tmp_path / "a", 5, ("yolov5n --graft off", -0.2), ("yolov5n-LSKA", 0.0))
    assert [one.model for one in collect(tmp_path)] == ["LSKA"]


def test_the_figure_has_a_panel_for_each_dataset(tmp_path: Path) -> None:
    _study(tmp_path / "a", 5, ("yolov5n-LSKA", 0.04))
    draw(collect(tmp_path), tmp_path / "one.png")
    _study(tmp_path / "b", 3, ("yolov5n-LSKA", 0.04), data="other.yaml")
    draw(collect(tmp_path), tmp_path / "two.png")
    one, two = (cv2.imread(str(tmp_path / name)) for name in ("one.png", "two.png"))
    assert one is not None and two is not None and two.shape[0] > one.shape[0]


def test_the_page_has_the_table(tmp_path: Path) -> None:
    _study(tmp_path / "a", 5, ("yolov5n-LSKA", 0.04))
    page = "top\n<!-- effects -->\nstale\n<!-- end -->\n<!-- table: a val sizes -->\n<!-- end -->\n"
    text = rebuild(page, tmp_path)
    assert "| cells | LSKA |" in text and "stale" not in text and rebuild(text, tmp_path) == text
