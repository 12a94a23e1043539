"""compare.py end to end: tiny trainings in subprocesses."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import compare
from models.weights import read_checkpoint
from studies.compare.compare_options import Comparison, parse_command, read_comparison
from studies.compare.run_plan import Run, plan_runs, train_all
from studies.jobs.local_runner import LocalRunner
from tests.known import SHARED, needs_shared
from tests.utils.train.small import small_models, small_set
from utils.base.errors import ConfigError
from utils.base.paths import ROOT
from utils.base.processes import lock_folder

Line = Callable[..., list[str]]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Line:
    """A command line that compares two small models."""
    home = tmp_path_factory.mktemp("compare them")
    data = small_set(home)
    small_models(home)

    def make(*flags: str, cfg: tuple[str, ...] = ("plain", "gated")) -> list[str]:
        configs = [f"'{home / name}.yaml'" for name in cfg]
        fixed = ["--data", str(data), "--imgsz", "64", "--epochs", "1", "--batch-size", "4"]
        output = ["--project", str(home / "runs"), "--device", "cpu", "--workers", "0", "--noautoanchor"]
        return ["--cfg", *configs, "--weights", "", *fixed, *output, "--rounds", "2", *flags]

    return make


def _read(argv: list[str]) -> Comparison:
    return read_comparison(*parse_command(argv))


def _plan(argv: list[str]) -> list[Run]:
    return plan_runs(_read(argv))


def test_a_comparison_trains_measures_and_reports(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    argv = line("--seeds", "0", "--labels", "plain", "gated", "--name", "first")
    compare.main(argv)
    folder = Path(argv[argv.index("--project") + 1]) / "first"
    with (folder / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    assert [(row["model"], row["checkpoint"]) for row in rows] == [
        *(("plain", "best"), ("plain", "last")),
        *(("gated", "best"), ("gated", "last")),
    ]
    assert all(float(row["latency"]) > 0 for row in rows)
    assert "one run cannot show a difference" in (folder / "report.md").read_text()

    with caplog.at_level("INFO"):
        compare.main([*argv, "--exist-ok"])
    assert "2 of 2 runs are complete already" in caplog.text


def test_only_missing_runs_are_trained(line: Line) -> None:
    done: list[tuple[str, int]] = []
    argv = line("--seeds", "0", "5", "--labels", "plain", "gated")
    project = Path(argv[argv.index("--project") + 1]) / "elsewhere"

    class FakeRunner(LocalRunner):
        def __call__(self, run: Any) -> Any:
            done.append((run.label, run.seed))
            measured = {"figures": {"best": {"val": {"mAP50": 0.1, "mAP": 0.05}}}}
            (run.save(project) / "measured.json").write_text(json.dumps(measured))
            return measured

    train_all(
        _plan(line("--seeds", "0", "--labels", "plain", "gated")), project, lambda: FakeRunner(project, 1)
    )
    train_all(_plan(argv), project, lambda: FakeRunner(project, 2))
    assert sorted(done) == [("gated", 0), ("gated", 5), ("plain", 0), ("plain", 5)]


def test_a_stopped_comparison_resumes(line: Line) -> None:
    """It is stopped by Ctrl-C, then by SIGTERM, then it runs to its end."""
    argv = line("--seeds", "0", "--labels", "plain", "gated", "--epochs", "40", "--name", "stopped")
    argv[argv.index("--project") + 1] += " stopped"
    project = Path(argv[argv.index("--project") + 1])
    for number in (signal.SIGINT, signal.SIGTERM):
        before = _checkpoints(project)
        command = [sys.executable, str(ROOT / "compare.py"), *argv]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as child:
            while _checkpoints(project) == before:
                assert child.poll() is None, child.communicate()[0]
                time.sleep(0.05)
            child.send_signal(number)
            text = child.communicate(timeout=60)[0]
        assert child.returncode == 128 + number
        assert "the same command resumes the comparison" in text and "Traceback" not in text
        (last,) = project.glob("runs/*/weights/last.pt")
        epoch = read_checkpoint(last).epoch
        assert 0 <= epoch < 39

    compare.main(argv)
    log = (last.parent.parent / "log.txt").read_text()
    assert f"Resuming training from {last}" in log or f"from epoch {epoch + 2}" in log
    measured = [json.loads(file.read_text()) for file in project.glob("runs/*/measured.json")]
    assert [len(one["epochs"]) for one in measured] == [40, 40]


def _checkpoints(project: Path) -> dict[Path, int]:
    """Return the last checkpoint of each run, and when it was written."""
    return {file: file.stat().st_mtime_ns for file in project.glob("runs/*/weights/last.pt")}


def test_a_killed_comparison_resumes(line: Line) -> None:
    """SIGKILL of parent and children, when one of the runs has a checkpoint."""
    argv = line("--seeds", "0", "--labels", "plain", "gated", "--epochs", "12", "--name", "killed")
    argv[argv.index("--project") + 1] += " killed"
    project = Path(argv[argv.index("--project") + 1])
    command = [sys.executable, str(ROOT / "compare.py"), *argv]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as parent:
        while not list(project.glob("runs/*/weights/last.pt")):
            assert parent.poll() is None
            time.sleep(0.02)
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        for process in (parent.pid, *map(int, children)):
            os.kill(process, signal.SIGKILL)
    last = next(project.glob("runs/*/weights/last.pt"))
    before = (last.parent.parent / "results.csv").read_text().splitlines()
    compare.main(argv)
    after = (last.parent.parent / "results.csv").read_text().splitlines()
    assert len(before) < 13 == len(after) and after[: len(before) - 1] == before[:-1], "it was resumed"
    measured = [json.loads(file.read_text()) for file in project.glob("runs/*/measured.json")]
    assert [len(one["epochs"]) for one in measured] == [12, 12]
    assert all(one["minutes"] > 0 for one in measured)


def test_odd_sizes_and_models_without_detections_are_reported(line: Line) -> None:
    argv = line("--seeds", "0", "--name", "odd", "--img", "70", cfg=("plain",))
    compare.main(argv)
    folder = Path(argv[argv.index("--project") + 1]) / "odd"
    text = (folder / "report.md").read_text()
    assert ", from scratch; " in text and "| model | circle |" in text


def test_a_folder_is_used_by_one_process_at_a_time(
    line: Line, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, *_ = _plan(line("--seeds", "0"))
    folder = run.save(tmp_path)
    runner = LocalRunner(tmp_path, 1, "cpu")
    with caplog.at_level("INFO"), lock_folder(folder):
        second = threading.Thread(target=runner, args=(run,))
        second.start()
        while "waiting for the process" not in caplog.text:
            time.sleep(0.01)
        (folder / "measured.json").write_text("{}")  # as the first one leaves it
    second.join(10)
    assert not second.is_alive() and not (folder / "log.txt").exists(), "nothing was left to do"


def test_the_key_depends_on_what_decides_the_result(line: Line) -> None:
    base = _plan(line("--seeds", "0"))[0].key
    assert _plan(line("--seeds", "0", "--cache", "ram", "--noplots", "--workers", "2"))[0].key == base
    for change in (("--seeds", "1"), ("--seeds", "0", "--cos-lr"), ("--seeds", "0", "--hyp", "hyp.VOC.yaml")):
        assert _plan(line(*change))[0].key != base, change


def test_the_key_depends_on_the_labels(line: Line, tmp_path: Path) -> None:
    argv = [*line("--seeds", "0"), "--data", str(small_set(tmp_path))]
    before = _plan(argv)[0].key
    assert before == _plan(line("--seeds", "0"))[0].key, "the same images in another folder"
    file = next((tmp_path / "set" / "labels" / "train").glob("*.txt"))
    file.write_text(file.read_text() + "0 0.5 0.5 0.2 0.2\n")
    assert _plan(argv)[0].key != before


def test_a_failed_run_is_named_with_its_reason(line: Line) -> None:
    argv = line("--seeds", "0", "--labels", "plain", "gated")
    run, *_ = _plan(argv)
    project = Path(argv[argv.index("--project") + 1]) / "failing"
    broken = Run(run.label, 0, "0" * 64, (*run.train, "--optimizer", "SGDX"), ("val",), {})
    with pytest.raises(Exception, match=r"plain, seed 0: failed .*invalid choice: 'SGDX'.*log\.txt"):
        train_all([broken], project, lambda: LocalRunner(project, 1, "cpu"))
    assert broken.completed(project) is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--seed", "3"], "--seeds"),
        (["--labels", "one"], "2 different names"),
        (["--project", "x", "--resume"], "compare.py sets it"),
        (["--evolve", "3"], "use train.py"),
        (["--seeds", "1", "1"], "different integers of at least 0"),
        (["--epochs", "0"], "--epochs 0"),
        (["--jobs", "0"], "--jobs 0"),
    ],
)
def test_invalid_flags_are_named(line: Line, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _read(line(*flags))


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ("yolov5n.yaml --name 'x", "--cfg yolov5n.yaml --name 'x: no closing quotation"),
        ("", "--cfg '': expected a model yaml"),
        ("yolov5n-LSKA.yaml --attention k=8", "k=8 cannot be split"),
    ],
)
def test_an_invalid_model_is_an_error_before_training(line: Line, cfg: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        _plan(["--cfg", cfg, *line()[3:]])


def test_the_same_model_twice_is_an_error(line: Line) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        _read(line(cfg=("plain", "plain")))


def test_models_may_be_given_with_a_flag_each() -> None:
    words = ["--cfg", "yolov5n.yaml", "--weights", "", "--seeds", "0", "--cfg=yolov5n-LSKA.yaml --cos-lr"]
    found = _read([*words, "--data", "x.yaml", "--rect"])
    assert [variant.label for variant in found.variants] == ["yolov5n", "yolov5n-LSKA --cos-lr"]
    assert found.common == ("--data", "x.yaml", "--rect", "--weights", "")
    assert parse_command(["--weights", "a.pt", "--img", "64", "--weights", "b.pt"])[0].weights == [
        *("a.pt", "b.pt")
    ]


def test_a_yaml_may_have_spaces_in_its_name(tmp_path: Path) -> None:
    yaml_file = tmp_path / "a model é.yaml"
    yaml_file.write_text("nc: 1")
    found = _read(["--cfg", str(yaml_file), "--weights", ""])
    assert found.variants[0].flags == ("--cfg", str(yaml_file))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "foo"], "--device foo"),
        (["--project", "{file}/x"], "is a file, where a folder is needed"),
    ],
)
def test_devices_and_folders_are_checked_before_training(
    line: Line, tmp_path: Path, flags: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=message):
        compare.main(line("--seeds", "0", *(word.format(file=tmp_path / "file") for word in flags)))


def test_the_script_does_not_import_torch() -> None:
    code = "import sys, compare; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@needs_shared
def test_weight_files_are_compared_over_images(tmp_path: Path) -> None:
    weights = [str(SHARED / "weights" / "bccd_yolov5n.pt")]
    other = tmp_path / "other" / "bccd_yolov5n.pt"
    other.parent.mkdir()
    other.write_bytes(Path(weights[0]).read_bytes())
    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump(
            {"path": str(SHARED / "data" / "bccd"), "train": "images/test", "val": "images/test"}
            | {"names": ["Platelets", "RBC", "WBC"]}
        )
    )
    output = ["--project", str(tmp_path / "runs"), "--device", "cpu", "--workers", "0", "--rounds", "2"]
    data = ["--data", str(tmp_path / "data.yaml"), "--imgsz", "160", "--resamples", "100"]
    compare.main(["--weights", *weights, str(other), *data, *output])
    text = (tmp_path / "runs" / "exp" / "report.md").read_text()

    assert "| other/bccd_yolov5n | 1.764 M |" in text or "| other/bccd_yolov5n | 1.768 M |" in text
    assert "+0.0 [+0.0, +0.0]" in text and "1.000 (1.000)" in text
    assert "no significant difference at 72 images" in text
    compare.main(["--weights", *weights, *data, *output, "--name", "alone", "--imgsz", "150"])
    assert "bccd_yolov5n alone." in (tmp_path / "runs" / "alone" / "report.md").read_text()


@pytest.mark.slow
def test_a_cross_validation_trains_each_model_on_each_fold(line: Line) -> None:
    argv = line(
        "--seeds", "0", "--folds", "3", "--labels", "plain", "gated", "--name", "crossed", "--jobs", "2"
    )
    compare.main(argv)
    folder = Path(argv[argv.index("--project") + 1]) / "crossed"
    with (folder / "results.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["checkpoint"] == "best"]
    assert [(row["model"], row["fold"]) for row in rows] == [
        (model, str(fold)) for model in ("plain", "gated") for fold in (1, 2, 3)
    ]
    text = (folder / "report.md").read_text()
    assert "seeds 0 with 3 folds each" in text and "3 folds" in text
    assert list((folder / "examples").glob("*.jpg")) or "no significant" in text
