"""docs/results.md holds what the committed csv files give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from studies.results import PAGE, rebuild
from tests.utils.compare.drawn import drawn_records
from utils.base.errors import DataError
from utils.compare.summary import class_table, main_table, summarize

PLACE = """before
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
    records = drawn_records()
    records.write(tmp_path / "one")
    text = rebuild(PLACE, tmp_path)

    assert text.startswith("before\n<!-- table: one val -->\n") and text.endswith("after\n")
    assert "stale" not in text
    summaries = summarize(records, "val")
    assert main_table(summaries) in text and class_table(records, "val") in text
    assert all(one.words in text for one in summaries)
    assert rebuild(text, tmp_path) == text


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"one.results\.csv"):
        rebuild(PLACE, tmp_path)
    (tmp_path / "one").mkdir()
    drawn_records().write(tmp_path / "one")
    with pytest.raises(DataError, match="no results of split nowhere"):
        rebuild(PLACE.replace("one val", "one nowhere"), tmp_path)


def test_the_committed_page_is_what_its_csv_files_give() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(re.findall(r"<!-- table: ", text)) >= 8
    assert rebuild(text, PAGE.with_suffix("")) == text, "run python studies/results.py"
