"""The table in README.md is that of the code."""

from __future__ import annotations

from studies.model_table import table
from utils.base.paths import ROOT


def test_the_table_in_the_readme_is_up_to_date() -> None:
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8")
