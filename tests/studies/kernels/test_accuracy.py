"""Accuracy over kernel sizes: images that need context, cases to train, intervals, cost, table and plot."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from studies.kernels import accuracy
from studies.kernels.accuracy import Row, cost, markdown, prepare_data, read_rows, run, summarize, write_rows
from studies.kernels.accuracy_options import AccuracyOptions
from studies.kernels.cases import DESIGNS, KERNELS
from studies.kernels.context_images import DIRECTIONS, RADIUS, SIDE, draw_pair, make_context_images
from tests.known import golden
from utils.base.options import options_from
from utils.base.seeds import generator


def options(**values: Any) -> AccuracyOptions:
    return options_from(AccuracyOptions, values)


@pytest.mark.parametrize("name", DIRECTIONS)
def test_the_blue_disc_is_in_the_direction_of_the_class(name: str) -> None:
    for number in range(20):
        image = draw_pair(generator(0, number), DIRECTIONS[name]).astype(int)
        assert image.shape == (SIDE, SIDE, 3)
        blue, red = (
            np.argwhere(image[..., one] - image[..., other] > 120).mean(0) for one, other in ((0, 2), (2, 0))
        )
        down, right = blue - red
        assert math.hypot(down, right) > 2 * RADIUS, "the discs do not touch"
        angle = math.degrees(math.atan2(down, right)) - DIRECTIONS[name]
        assert abs((angle + 180) % 360 - 180) < 33


def test_images_are_drawn_once_and_equally(tmp_path: Path) -> None:
    first, again = (make_context_images(tmp_path / name, train=2, val=1) for name in ("a", "b"))
    files = sorted(path.relative_to(first) for path in first.rglob("*.jpg"))
    assert len(files) == 4 * (2 + 1)
    assert all((first / file).read_bytes() == (again / file).read_bytes() for file in files)
    (first / files[0]).unlink()
    assert not (make_context_images(first) / files[0]).exists(), "an existing folder is left as it is"


def test_fewer_training_images_of_a_dataset_are_copied(tmp_path: Path) -> None:
    for split, count in (("train", 5), ("val", 3)):
        for name in ("a", "b"):
            folder = tmp_path / "set" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                cv2.imwrite(str(folder / f"{number}.png"), np.full((8, 8, 3), number, np.uint8))
    made = prepare_data(options(data=str(tmp_path / "set"), per_class=2), tmp_path / "out")
    assert sorted(str(path.relative_to(made)) for path in made.rglob("*.png")) == [
        *(f"train/{name}/{number}.png" for name in "ab" for number in range(2)),
        *(f"val/{name}/{number}.png" for name in "ab" for number in range(3)),
    ]
    assert prepare_data(options(data=str(tmp_path / "set"), per_class=0), tmp_path) == tmp_path / "set"


def test_only_missing_cases_are_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train_case(options: Any, data: Path, folder: Path, design: str, k: int, seed: int) -> Row:
        trained.append((design, k, seed))
        if len(trained) == 3:
            raise KeyboardInterrupt
        return Row(design, k, seed, 0.5 + seed / 10, 1.25)

    monkeypatch.setattr(accuracy, "train_case", train_case)
    chosen = options(designs=["LSKA", "LKA"], kernels=[7], seeds=[0, 1], per_class=1, project=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run(chosen)
    assert trained == [("LSKA", 7, 0), ("LKA", 7, 0), ("LSKA", 7, 1)]
    run(chosen)
    assert trained[3:] == [("LSKA", 7, 1), ("LKA", 7, 1)]
    rows = read_rows(tmp_path / "accuracy.csv")
    assert [row[:4] for row in rows] == [(*case, 0.5 + case[2] / 10) for case in (*trained[:2], *trained[3:])]
    assert (tmp_path / "accuracy.png").stat().st_size > 10_000


def test_intervals_are_those_of_students_t() -> None:
    rows = [Row("LSKA", 7, seed, top1, 1.0) for seed, top1 in enumerate((0.5, 0.6, 0.7))]
    (one,) = summarize(rows)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert one[:3] == ("LSKA", 7, pytest.approx(0.6)) and one.seeds == 3
    assert (one.low, one.high) == (pytest.approx(0.6 - half), pytest.approx(0.6 + half))
    (single,) = summarize(rows[:1])
    assert math.isnan(single.low) and math.isnan(single.high)
    assert "| 0.500 | - | 1 |" in markdown([single])


@pytest.mark.parametrize("k", KERNELS)
def test_the_cost_is_that_of_the_authors_code(k: int) -> None:
    known: dict[str, Any] = golden("10_lska")["van"][f"van_tiny/k{k}"]
    parameters, gmacs = cost("LSKA", k)
    assert parameters == known["parameters"]
    assert gmacs == pytest.approx(known["thop_gmacs_224"], rel=1e-3)


def test_the_table_has_a_row_for_each_design_and_kernel(tmp_path: Path) -> None:
    rows = [Row(design, k, 0, 0.5, 1.0) for k in (23, 7) for design in DESIGNS]
    write_rows(tmp_path / "accuracy.csv", rows)
    lines = markdown(summarize(read_rows(tmp_path / "accuracy.csv"))).splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [(row[0], row[1]) for row in cells] == [
        (name, k) for name in DESIGNS.values() for k in ("7", "23")
    ]
    assert ["LSKA", "23", "4,029,000", "0.839"] in [row[:4] for row in cells]
