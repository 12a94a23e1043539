"""The benchmark of the training loop runs with the loop as it is."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.known import needs_shared
from utils.base.paths import ROOT


@pytest.mark.slow
@needs_shared
def test_the_loop_and_the_bare_step_are_measured(tmp_path: Path) -> None:
    file = tmp_path / "training.csv"
    flags = ["--img", "64", "--workers", "1", "--images", "48", "--rounds", "2", "--csv", str(file)]
    command = [sys.executable, "benchmarks/training.py", *flags]
    subprocess.run(command, cwd=ROOT, check=True, timeout=300)

    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    assert [row["what"] for row in rows] == ["64 px, 1 workers, mosaic", "64 px, 1 workers, no mosaic"]
    assert all(0 < float(row["median"]) < 5 for row in rows)
