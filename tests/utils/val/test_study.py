from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

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
