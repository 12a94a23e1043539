"""The tables of docs/performance.md match the csv files, and ratios are computed as documented."""

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
    sys.modules[spec.name] = module  # dataclasses look up their module there
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def restored_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))


@pytest.mark.usefixtures("restored_path")
def test_the_page_has_the_tables_of_its_csv_files() -> None:
    runner = load("all")
    page = runner.PAGE.read_text(encoding="utf-8")

    assert runner.rebuild(page, runner.RESULTS) == page
    measured = {path.stem for path in runner.RESULTS.glob("*.csv")} - {runner.PROCESSORS}
    assert set(runner.DEFAULT) <= measured <= set(runner.SCRIPTS)  # what runs only by name may be missing
    assert all((ROOT / "benchmarks" / f"{script}.py").is_file() for script, *_ in runner.SCRIPTS.values())


@pytest.mark.usefixtures("restored_path")
def test_a_ratio_is_the_median_of_the_rounds_and_is_compared_with_its_target(tmp_path: Path) -> None:
    timing = load("timing")
    seconds = {"new": [1.0, 2.0, 4.0], "old": [3.0, 4.0, 12.0]}

    row = timing.faster("a step", ">= 2.5", seconds, "new", "old")
    assert (row.median, row.status) == (3.0, "met")
    assert timing.slower("a step", "<= 0.3", seconds, "new", "old").status == "missed"

    table = timing.ResultTable("Title", str(tmp_path / "results.csv"))
    table.add(row)
    (written,) = csv.DictReader((tmp_path / "results.csv").open())
    assert written["what"] == "a step" and float(written["median"]) == 3 and written["verdict"] == "met"
    assert written["machine"] == timing.describe_machine() and "torch" in written["machine"]
    assert load("all").table(tmp_path / "results.csv").endswith(f"|\n\n{written['machine']}\n")


@pytest.mark.usefixtures("restored_path")
def test_figures_with_a_target_are_kept_for_each_processor(tmp_path: Path) -> None:
    runner = load("all")
    head = "what,target,median,low,high,sides,verdict,machine\n"

    def measured(name: str, value: float, machine: str) -> None:
        rows = f'a step,>= 1.4,{value},1,2,,met,"{machine}, torch 2"\nother,,5,5,5,,,"{machine}, torch 2"\n'
        (tmp_path / f"{name}.csv").write_text(head + rows)
        runner.remember(name, tmp_path)

    measured("step", 1.5, "EPYC, 2 threads")
    measured("step", 1.6, "Xeon, 2 threads")
    measured("step-avx2", 1.2, "Xeon (AVX2), 2 threads")
    measured("step", 1.7, "Xeon, 2 threads")

    *_, row = lines = runner.processors_table(tmp_path).splitlines()
    assert (
        lines[0] == "| table | what | target | EPYC, 2 threads | Xeon (AVX2), 2 threads | Xeon, 2 threads |"
    )
    assert row == "| step | a step | >= 1.4 | 1.5 | 1.2 | 1.7 |" and len(lines) == 3


@pytest.mark.usefixtures("restored_path")
def test_sides_alternate() -> None:
    calls: list[str] = []

    seconds = load("timing").alternate(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=4, warm=0, least=0
    )

    assert [len(times) for times in seconds.values()] == [4, 4]
    assert "".join(calls[2:]) in ("baabbaab", "abbaabba")


def test_every_benchmark_lets_idle_threads_sleep() -> None:
    for file in (ROOT / "benchmarks").glob("*.py"):
        text = file.read_text(encoding="utf-8")
        imports_torch = "import torch" in text or "from utils" in text
        sets_waiting = 'setdefault("OMP_WAIT_POLICY", "passive")' in text or "timing import" in text
        assert sets_waiting or "import timing" in text or not imports_torch, file.name
