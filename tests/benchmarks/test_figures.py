"""The figures on docs/performance.md are those of the csv files, and ratios are what they are said to be."""

from __future__ import annotations

import csv
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from utils.base.paths import ROOT


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"bench_{name}", ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look for their module there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def restored_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("restored_path")
def test_the_page_has_the_tables_of_its_csv_files() -> None:
    runner = load("all")
    page = runner.PAGE.read_text(encoding="utf-8")

    assert runner.rebuild(page, runner.FIGURES) == page
    assert set(runner.SCRIPTS) == {path.stem for path in runner.FIGURES.glob("*.csv")}
    assert all((ROOT / "benchmarks" / f"{script}.py").is_file() for script, *_ in runner.SCRIPTS.values())


@pytest.mark.usefixtures("restored_path")
def test_a_ratio_is_the_median_over_rounds_and_knows_its_target(tmp_path: Path) -> None:
    measure = load("timing")
    seconds = {"new": [1.0, 2.0, 4.0], "old": [3.0, 4.0, 12.0]}

    line = measure.faster("a step", ">= 2.5", seconds, "new", "old")
    assert (line.median, line.verdict) == (3.0, "met")
    assert measure.slower("a step", "<= 0.3", seconds, "new", "old").verdict == "missed"

    table = measure.ResultTable("Title", str(tmp_path / "figures.csv"))
    table.add(line)
    (row,) = csv.DictReader((tmp_path / "figures.csv").open())
    assert row["what"] == "a step" and float(row["median"]) == 3 and row["verdict"] == "met"


@pytest.mark.usefixtures("restored_path")
def test_sides_take_turns() -> None:
    calls: list[str] = []

    seconds = load("timing").alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4, warm=0, least=0
    )

    assert [len(times) for times in seconds.values()] == [4, 4]
    assert "".join(calls[2:]) in ("baabbaab", "abbaabba")
