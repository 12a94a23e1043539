"""Tables and sentences, from rows whose truth is known."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.utils.compare.drawn import GAIN, SEEDS, drawn_records
from utils.base.errors import DataError
from utils.compare.records import Records, read_records
from utils.compare.report import markdown, write_report
from utils.compare.summary import epochs_to_reach, summarize


def test_csv_files_bring_the_records_back(tmp_path: Path) -> None:
    records = drawn_records()
    records.write(tmp_path)
    again = read_records(tmp_path)
    assert (again.models, again.seeds) == (["base", "better", "same"], list(SEEDS))
    assert again.classes == ["cat", "dog, old"]
    assert again.figure("same", "mAP50-95") == pytest.approx(records.figure("same", "mAP50-95"))
    assert again.curve("better", 3) == pytest.approx(records.curve("better", 3), rel=1e-5)


def test_a_report_from_csv_files_is_the_same_report(tmp_path: Path) -> None:
    write_report(drawn_records(), tmp_path)
    assert markdown(read_records(tmp_path)) == (tmp_path / "report.md").read_text()


def test_planted_differences_come_out() -> None:
    base, better, same = summarize(drawn_records())
    assert base.pair is None and base.words == ""
    assert better.pair is not None and better.pair.mean == pytest.approx(GAIN + 0.002)
    assert better.pair.low <= GAIN + 0.002 <= better.pair.high
    assert better.words.startswith("better is better than base by 5.2 points")
    assert "no difference can be told at 5 seeds" in same.words
    assert better.p_adjusted >= better.pair.p


def test_epochs_until_the_baseline_is_reached() -> None:
    records = drawn_records()
    assert epochs_to_reach(records, "better") == (10.0, 5, 5)  # 0.9 of a curve 10 % higher is not enough
    assert epochs_to_reach(records, "same") == (10.0, 3, 5)  # the seeds whose noise is positive


def test_the_report_says_what_was_compared() -> None:
    text = markdown(drawn_records())
    assert "3 models, seeds 0, 1, 2, 3, 4; 30 minutes of training; code abc." in text
    assert "| better | 2.000 M | 5.00 | 11.0 (9.0 to 12.0) | 0.872 ± 0.017 |" in text
    assert "## test, best.pt of each run" in text and "| model | cat | dog, old |" in text


def test_one_seed_gives_no_verdict() -> None:
    records = drawn_records()
    few = Records([row for row in records.results if row["seed"] == 0], [])
    assert "one run says nothing" in markdown(few)


def test_a_folder_without_a_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.csv"):
        read_records(tmp_path)
