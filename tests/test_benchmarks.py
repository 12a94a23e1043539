from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import benchmarks
from studies.compare import formats
from studies.compare.benchmark_options import BenchmarkOptions
from tests.models.backends.files import NAMES, checkpoint
from tests.studies.classifiers import class_folders, classifier
from tests.studies.segmenters import polygon_set, segmenter
from utils.base.errors import ConfigError
from utils.base.options import parse_options
from utils.base.paths import ROOT
from utils.data.shapes import make_shapes
from utils.tasks.segment.options import SegmentValOptions
from utils.tasks.segment.validation import SegmentResult
from utils.val.accumulator import EvalResult
from utils.val.measure import measure
from utils.val.val_options import ValOptions


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


def test_every_format_has_a_row_with_size_accuracy_and_time(home: Path) -> None:
    done = run(home, "--include", "torchscript", "onnx", "--csv", str(home / "table.csv"))

    assert done.returncode == 0, done.stderr
    assert "mAP50-95  Inference time (ms)" in done.stdout
    rows = list(csv.DictReader((home / "table.csv").open()))
    assert [row["format"] for row in rows] == ["PyTorch", "TorchScript", "ONNX"]
    assert len({round(float(row["map"]), 3) for row in rows}) == 1
    assert all(float(row["megabytes"]) > 0.01 and float(row["milliseconds"]) > 0 for row in rows)


def test_the_accuracy_of_a_segmentation_model_is_that_of_its_masks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    validated: list[dict[str, Any]] = []

    def answer(module: str, what: dict[str, Any], quiet: bool) -> dict[str, float]:
        validated.append(dict(what))
        return formats._validate_in_this_process(what)

    monkeypatch.setattr(formats, "run_in_subprocess", answer)
    result = SegmentResult(
        **vars(EvalResult({0: "a"}, 1, np.ones(1), np.ones(1), map50=0.3, map=0.2)),
        mask=EvalResult({0: "a"}, 1, np.ones(1), np.ones(1), map50=0.25, map=0.125),
    )
    monkeypatch.setattr(formats, "measure", lambda options: _measured(options, result))
    weights, table = segmenter(tmp_path), tmp_path / "table.csv"
    flags = {"data": polygon_set(tmp_path), "imgsz": 64, "include": ["torchscript"], "csv": table}
    with caplog.at_level("INFO"):
        rows = benchmarks.run(weights=weights, **flags)

    assert [(row.format, row.map50, row.map, row.box_map) for row in rows] == [
        *(("PyTorch", 0.25, 0.125, 0.2), ("TorchScript", 0.25, 0.125, 0.2))
    ]
    assert [what["model_task"] for what in validated] == ["segment", "segment"]
    assert csv.DictReader(table.open()).fieldnames[5:7] == ["map", "box_map"]  # type: ignore[index]


def test_the_accuracy_of_a_classification_model_is_top_1_and_top_5(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, data = classifier(tmp_path), class_folders(tmp_path)
    rows = benchmarks.run(weights=weights, data=data, imgsz=32, include=["torchscript"])

    assert [row.format for row in rows] == ["PyTorch", "TorchScript"]
    for row in rows:
        assert row.top1 == rows[0].top1 and row.top5 == rows[0].top5 and row.map is None
        assert row.milliseconds and row.megabytes
    assert rows[1].difference is not None and rows[1].difference < 1e-4
    printed = capsys.readouterr().out
    assert "Top-1    Top-5  Inference time (ms)" in printed and "mAP" not in printed
    assert rows[0].top1 is not None and len(formats.failures(rows, rows[0].top1 + 0.01)) == 2
    assert "PyTorch: top-1 0." in capsys.readouterr().err


def _measured(options: ValOptions, result: SegmentResult) -> SegmentResult:
    assert isinstance(options, SegmentValOptions) and options.task == "speed"
    assert isinstance(measure(options), SegmentResult)
    return result


def test_hard_fail_gives_status_1_for_a_lower_map(home: Path) -> None:
    done = run(home, "--pt-only", "--hard-fail", "0.99")

    assert done.returncode == 1
    assert "ERROR: PyTorch: mAP50-95 0.0" in done.stderr and "is below 0.99" in done.stderr
    assert run(home, "--pt-only", "--hard-fail").returncode == 0


def test_a_format_that_fails_gives_status_1_only_with_hard_fail(home: Path) -> None:
    words = ("--include", "tfjs", "--test")
    default, strict = run(home, *words), run(home, *words, "--hard-fail")

    assert default.returncode == 0 and strict.returncode == 1
    assert "TensorFlow.js" in default.stdout and "needs" in default.stdout


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, benchmarks\nsys.argv[1:] = ['--help']\ntry:\n    benchmarks.main()\n"
        "except SystemExit:\n    print({'torch', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()"


def test_hard_fail_needs_a_number_from_0_to_1(home: Path) -> None:
    done = run(home, "--pt-only", "--hard-fail", "much")
    assert done.returncode == 2
    assert "--hard-fail: invalid float value: 'much'" in done.stderr.splitlines()[-1]
    with pytest.raises(ConfigError, match=r"--hard-fail 2.0: expected a number from 0 to 1"):
        benchmarks.run(hard_fail=2)
    assert parse_options(BenchmarkOptions, []).hard_fail is False
    assert parse_options(BenchmarkOptions, ["--hard-fail"]).hard_fail is True
