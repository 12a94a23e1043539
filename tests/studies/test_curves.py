"""studies/curves.py, from the command line to its files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import pytest

from studies.kernels.cases import Case, CurvesOptions
from studies.kernels.cost_table import CostRow, markdown, read_csv, write_csv
from studies.kernels.measure_cost import count, run
from studies.kernels.plot_cost import draw_all
from utils.base.errors import ConfigError, DataError
from utils.base.options import parse_options
from utils.base.paths import ROOT

FLAGS = "--part module --kernels 7 11 --designs LKA LSKA --channels 8 --sizes 20 10 --budget 0"


def _parse(argv: list[str]) -> CurvesOptions:
    return parse_options(CurvesOptions, argv)


def row(part: str, model: str, design: str, k: int, scale: float = 1.0) -> CostRow:
    """Return a row with exact counts and arbitrary times."""
    case = Case(part, model, design, k, 64 if part == "module" else 0, 20 if part == "module" else 224)
    times: dict[str, Any] = {"forward_ms": 2.0, "forward_low_ms": 1.9, "forward_high_ms": 2.2}
    times |= {"step_ms": 8.0 * scale, "step_low_ms": 7.0 * scale, "step_high_ms": 9.0 * scale}
    counted = count(case)
    return CostRow(
        **vars(case),
        **counted,
        **times,
        repeats=5,
        peak_mib=3.25,
        batch=1,
        machine="a box",
        command="python x",
    )


def test_a_run_writes_tables_and_plots_and_plot_only_writes_them_again(tmp_path: Path) -> None:
    folder = run(_parse([*FLAGS.split(), "--project", str(tmp_path), "--name", "tiny"]))

    rows = read_csv(folder / "curves.csv")
    assert folder == tmp_path / "tiny"
    assert [(r.side, r.design, r.k) for r in rows] == [
        (side, design, k) for side in (20, 10) for design in ("LKA", "LSKA") for k in (7, 11)
    ]
    assert all(r.repeats >= 3 and r.peak_mib > 0 and "torch" in r.machine for r in rows)
    images = sorted(path.name for path in folder.glob("*.png"))
    assert images == [f"module-{name}.png" for name in ("counts", "forward", "memory", "step")]

    table = (folder / "curves.md").read_text()
    for path in [*folder.glob("*.png"), folder / "curves.md"]:
        path.unlink()
    assert run(_parse(["--plot-only", str(folder / "curves.csv")])) == folder
    assert (folder / "curves.md").read_text() == table
    assert sorted(path.name for path in folder.glob("*.png")) == images


def test_tables_name_the_convention_of_counts(tmp_path: Path) -> None:
    rows = [row("van", "VAN-Tiny", "LKA", 23), row("module", "module alone", "LSKA", 7)]
    text = markdown(rows)
    assert "GMACs (multiply-adds) | GMACs with biases, as the VAN paper counts | GFLOPs (2 x GMACs)" in text
    assert "| LKA | 23 | 4,105,800 | 0.8708 | 0.8802 | 1.742 | 2.00 (1.90 to 2.20) |" in text
    assert "## module alone, 64 channels, 20 x 20" in text
    assert len({line.count("|") for line in text.split("## ")[1].splitlines() if line.startswith("|")}) == 1

    write_csv(tmp_path / "c.csv", rows)
    assert markdown(read_csv(tmp_path / "c.csv")) == text


def test_each_model_has_a_plot(tmp_path: Path) -> None:
    rows = [row("van", "VAN-Tiny", d, k, k) for d in ("LKATrivial", "LSKA") for k in (7, 53)]
    files = draw_all(rows, tmp_path)
    assert [file.name for file in files] == ["van-tiny.png"]
    height, width = cv2.imread(str(files[0])).shape[:2]
    assert (width, height) == (1800, 1050)


def test_invalid_tables_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--plot-only .*none.csv: no such file"):
        run(_parse(["--plot-only", str(tmp_path / "none.csv")]))
    path = tmp_path / "bad.csv"
    path.write_text("design,k\nLSKA,7\n")
    with pytest.raises(DataError, match=r"bad.csv: not a table of studies/curves.py \(no column part\)"):
        read_csv(path)
    write_csv(path, [row("module", "module alone", "LSKA", 7)])
    path.write_text(path.read_text().replace(",7,", ",seven,", 1))
    with pytest.raises(DataError, match="bad.csv, line 2: .*'seven'"):
        read_csv(path)
    write_csv(path, [])
    with pytest.raises(DataError, match="bad.csv: no rows"):
        read_csv(path)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--kernels 21", "--kernels 21: LKA does not exist for it"),
        ("--kernels 8", "--kernels 8: LKA-trivial does not exist for it .* must be odd"),
        ("--channels 0", "--channels 0: expected an integer of at least 1"),
        ("--budget -1", "--budget -1.0: expected a number of at least 0"),
        ("--batch-size 0", "--batch-size 0"),
        ("--threads -1", "--threads -1"),
    ],
)
def test_invalid_numbers_are_errors(flags: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(_parse(flags.split()))


def test_help_needs_no_torch() -> None:
    code = (
        "import sys, studies.curves as c\nsys.argv[1:] = ['--help']\ntry: c.main()\nexcept SystemExit: pass\n"
    )
    code += "assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--plot-only CSV" in done.stdout


def test_an_unknown_design_is_a_usage_error(tmp_path: Path) -> None:
    script = [sys.executable, str(ROOT / "studies/curves.py"), "--designs", "SLKA"]
    done = subprocess.run(script, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "SLKA is not one of LKATrivial, LSKATrivial, LKA, LSKA" in done.stderr
    assert "Traceback" not in done.stderr
