"""The README's figures are those of the code."""

from __future__ import annotations

from studies.model_table import table
from utils.base.paths import ROOT


def test_the_readme_has_the_table_of_today() -> None:
    assert table() in (ROOT / "README.md").read_text(encoding="utf-8")
