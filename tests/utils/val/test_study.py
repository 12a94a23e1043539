from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from utils.tasks.segment.validation import SegmentResult
from utils.val import study as module
from utils.val.accumulator import EvalResult
from utils.val.study import SIZES, study


def test_a_study_writes_a_row_for_each_size_and_a_table_for_each_model(tmp_path: Path) -> None:
    def measure(file: str, size: int) -> EvalResult:
        return EvalResult(
            {0: "a"}, 1, np.ones(1), np.ones(1), map50=0.5, map=size / 10_000, speeds=(1.0, size / 10, 2.0)
        )

    study(measure, ["w/a.pt", "w/b.pt"], "coco128", tmp_path)

    rows = np.loadtxt(tmp_path / "study_coco128_a.txt")
    assert rows.shape == (len(SIZES), 10) == (11, 10)
    assert rows[:, 3].tolist() == [size / 10_000 for size in SIZES]
    assert rows[0, 7:].tolist() == [1, 25.6, 2]
    with zipfile.ZipFile(tmp_path / "study.zip") as archive:
        assert archive.namelist() == ["study_coco128_a.txt", "study_coco128_b.txt"]
    assert (tmp_path / "study.png").stat().st_size > 1000


def test_models_of_one_name_have_separate_tables(tmp_path: Path) -> None:
    result = EvalResult({0: "a"}, 1, np.ones(1), np.ones(1))

    study(lambda file, size: result, ["x/best.pt", "y/best.pt"], "coco128", tmp_path)

    assert {file.name for file in tmp_path.glob("*.txt")} == {
        "study_coco128_best.txt",
        "study_coco128_best2.txt",
    }


def test_a_study_of_segmentation_has_columns_for_boxes_and_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = EvalResult({0: "a"}, 1, np.ones(1), np.ones(1), 0.1, 0.2, 0.3, 0.4)
    mask = EvalResult({0: "a"}, 1, np.ones(1), np.ones(1), 0.5, 0.6, 0.7, 0.8)
    result = SegmentResult(**vars(box) | {"losses": (0.0,) * 4, "speeds": (1.0, 2.0, 3.0)}, mask=mask)
    drawn: list[tuple[float, float, str]] = []

    def plot(models: Mapping[str, np.ndarray], path: Path, metric: str) -> None:
        drawn.append((*models["a"][0].tolist(), metric))

    monkeypatch.setattr(module, "plot_study", plot)
    study(lambda file, size: result, ["a.pt"], "shapes-seg", tmp_path)

    rows = np.loadtxt(tmp_path / "study_shapes-seg_a.txt")
    assert rows.shape == (len(SIZES), 15)
    assert rows[0].tolist() == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0, 0, 0, 0, 1, 2, 3]
    assert drawn == [(2, 0.8, "mask mAP50-95")], "milliseconds of inference, mAP50-95 of masks"
