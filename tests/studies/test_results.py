"""The tables of docs/results.md are those of the committed csv files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studies.compare.summary import class_table, main_table, summarize
from studies.results import PAGE, rebuild
from tests.studies.compare.synthetic import synthetic_records
from utils.base.errors import DataError

PAGE_TEXT = """before
<!-- table: one val -->
stale
<!-- end -->
between
<!-- table: one val classes -->
<!-- end -->
after
"""


def test_tables_are_made_from_the_csv_files(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    records = synthetic_records()
    records.write(tmp_path / "one")
    text = rebuild(PAGE_TEXT, tmp_path)

    assert text.startswith("before\n<!-- table: one val -->\n") and text.endswith("after\n")
    assert "stale" not in text
    summaries = summarize(records, "val")
    assert main_table(summaries) in text and class_table(records, "val") in text
    assert all(one.conclusion in text for one in summaries)
    assert rebuild(text, tmp_path) == text


def test_results_of_visualize_are_written_as_a_table(tmp_path: Path) -> None:
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates/erf.csv").write_text(
        "model,side_50,side_90,side_99,area_fraction_50\nplain,10,20,30,0.0125\ngated,11,21,31,0.5\n"
    )
    (tmp_path / "gates/gates.csv").write_text("picture,model,mean_change\na,gated,0.1\nb,gated,0.3\n")
    text = rebuild("<!-- seen: gates -->\n<!-- end -->\n", tmp_path)
    assert (
        "| plain | 10 px | 20 px | 30 px | 1.2% |  |\n| gated | 11 px | 21 px | 31 px | 50.0% | 0.20 |"
        in text
    )
    (tmp_path / "gates/erf.csv").unlink()
    with pytest.raises(DataError, match=r"erf\.csv: No such file"):
        rebuild("<!-- seen: gates -->\n<!-- end -->\n", tmp_path)


def test_runs_are_written_with_their_means(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/runs.csv").write_text("model,seed,top-1\nplain,0,0.5\ngated,0,0.25\nplain,1,0.75\n")
    text = rebuild("<!-- runs: runs -->\n<!-- end -->\n", tmp_path)
    assert "| model | top-1 | mean |\n|---|---|---|\n" in text
    assert "| plain | 0.500, 0.750 | 0.625 |\n| gated | 0.250 | 0.250 |\n" in text


def test_the_accuracy_of_designs_is_written(tmp_path: Path) -> None:
    page = "<!-- accuracy: van -->\n<!-- end -->\n"
    with pytest.raises(DataError, match=r"accuracy\.csv: no results"):
        rebuild(page, tmp_path)
    (tmp_path / "van").mkdir()
    (tmp_path / "van/accuracy.csv").write_text(
        "design,k,seed,top1,val_loss\nLSKA,23,0,0.5,1\nLSKA,23,1,0.6,1\n"
    )
    assert "| LSKA | 23 | 4,029,000 | 0.839 | 0.550 | -0.085 to 1.185 | 2 |" in rebuild(page, tmp_path)


def test_missing_results_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one.results\.csv"):
        rebuild(PAGE_TEXT, tmp_path)
    (tmp_path / "one").mkdir()
    synthetic_records().write(tmp_path / "one")
    with pytest.raises(DataError, match="no results of split nowhere"):
        rebuild(PAGE_TEXT.replace("one val", "one nowhere"), tmp_path)


def test_the_committed_page_is_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(re.findall(r"<!-- table: ", text)) >= 8
    assert rebuild(text, PAGE.with_suffix("")) == text, "run python studies/results.py"
