from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import benchmarks
from tests.models.backends.files import NAMES, checkpoint
from utils.base.paths import ROOT
from utils.data.shapes import make_shapes


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of two classes, and eight images with labels of the first two."""
    home = tmp_path_factory.mktemp("formats")
    shutil.copy(checkpoint(), home / "tiny.pt")
    make_shapes(home / "set", train=2, val=8, size=64)
    for file in (home / "set" / "labels").rglob("*.txt"):
        lines = [line for line in file.read_text().splitlines() if line[0] in "01"]
        file.write_text("\n".join(lines))
    content = {"path": str(home / "set"), "train": "images/train", "val": "images/val", "names": NAMES}
    (home / "data.yaml").write_text(yaml.safe_dump(content))
    return home


def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    flags = ["--weights", str(home / "tiny.pt"), "--data", str(home / "data.yaml"), "--img", "64", *words]
    command = [sys.executable, "benchmarks.py", *flags]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180)


def test_every_format_gets_a_row_with_size_accuracy_and_time(home: Path) -> None:
    done = run(home, "--include", "torchscript", "onnx", "--csv", str(home / "table.csv"))

    assert done.returncode == 0, done.stderr
    assert "mAP50-95  Inference time (ms)" in done.stdout
    rows = list(csv.DictReader((home / "table.csv").open()))
    assert [row["format"] for row in rows] == ["PyTorch", "TorchScript", "ONNX"]
    assert len({round(float(row["map"]), 3) for row in rows}) == 1
    assert all(float(row["megabytes"]) > 0.01 and float(row["milliseconds"]) > 0 for row in rows)


def test_hard_fail_makes_a_failure_of_what_is_below(home: Path) -> None:
    done = run(home, "--pt-only", "--hard-fail", "0.99")

    assert done.returncode == 1
    assert "ERROR: PyTorch: mAP50-95 0.0" in done.stderr and "is below 0.99" in done.stderr
    assert run(home, "--pt-only", "--hard-fail").returncode == 0


def test_a_format_that_fails_is_a_row_and_a_failure_only_if_asked(home: Path) -> None:
    words = ("--include", "tfjs", "--test")
    calm, strict = run(home, *words), run(home, *words, "--hard-fail")

    assert calm.returncode == 0 and strict.returncode == 1
    assert "TensorFlow.js" in calm.stdout and "needs" in calm.stdout


def test_help_loads_nothing_heavy() -> None:
    code = "import sys, benchmarks; benchmarks.make_parser(); print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n"


def test_a_number_is_needed(home: Path) -> None:
    done = run(home, "--pt-only", "--hard-fail", "much")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("ERROR: --hard-fail much: a number from 0 to 1")
    assert benchmarks.make_parser().parse_args([]).hard_fail is False
