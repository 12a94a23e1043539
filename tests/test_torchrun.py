"""Distributed training: processes started by torchrun, with the gloo backend."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.weights import read_checkpoint
from studies.training import train
from tests.known import SHARED, needs_shared
from tests.studies.classifiers import class_folders, small_classifiers
from tests.utils.train.small import small_models, small_set
from utils.base.options import parse_options
from utils.base.paths import ROOT
from utils.tasks.classify.options import ClassifyTrainOptions

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
STEPS = ("steps", "segment_steps", "classify_steps")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders with the results of each task in one process and in two; a file per task."""
    home = tmp_path_factory.mktemp("results")
    one, two = home / "one", home / "two"
    weights = SHARED / "weights" / "bccd_yolov5n.pt"
    tasks = [*STEPS, *(["measured"] if SHARED.is_dir() else [])]
    for folder, start in ((one, (sys.executable,)), (two, TORCHRUN)):
        folder.mkdir()
        done = _run(*start, "-m", "tests.utils.train.together", ",".join(tasks), str(folder), str(weights))
        assert done.returncode == 0, done.stderr
    return one, two


@pytest.mark.parametrize("steps", STEPS)
def test_two_processes_of_8_images_train_like_one_of_16(results: tuple[Path, Path], steps: str) -> None:
    one, two = (torch.load(folder / steps, weights_only=True) for folder in results)
    assert torch.allclose(one["losses"], two["losses"], rtol=0, atol=1e-5)
    for key, value in one["weights"].items():
        assert torch.allclose(value.float(), two["weights"][key].float(), rtol=0, atol=1e-5), key


@needs_shared
def test_two_processes_measure_the_same_as_one(results: tuple[Path, Path]) -> None:
    one, two = (torch.load(folder / "measured", weights_only=True) for folder in results)
    assert one["seen"] == two["seen"] == 72 and one["map50"] > 0.3
    assert one == two, "to the last bit, and image by image"


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Return the flags of a short training; its last batch has 3 images for two processes."""
    home = tmp_path_factory.mktemp("together")
    data, (_, model) = small_set(home, train=15, val=5), small_models(home)
    made = ["--data", str(data), "--cfg", str(model), "--weights", "", "--imgsz", "64", "--device", "cpu"]
    made += ["--epochs", "12", "--batch-size", "4", "--workers", "0", "--noplots", "--noautoanchor"]
    return [*made, "--save-steps", "1", "--project", str(home / "runs")]


def test_two_processes_train_and_measure_a_classifier_like_one(tmp_path: Path) -> None:
    """All but the linear layer is frozen, as each process has its own statistics of batch norm."""
    data, (_, cfg) = class_folders(tmp_path, train=7, val=5), small_classifiers(tmp_path)
    made = [
        "--data",
        str(data),
        "--cfg",
        str(cfg),
        "--model",
        "",
        "--img",
        "32",
        "--device",
        "cpu",
        "--freeze",
    ]
    made += ["3", "--epochs", "2", "--batch-size", "6", "--workers", "0", "--project", str(tmp_path / "runs")]
    made += ["--save-period", "1"]  # unlike last.pt, these checkpoints keep FP32
    options = parse_options(ClassifyTrainOptions, [*made, "--name", "one"])
    one = train(options).save_dir
    done = _run(*TORCHRUN, str(ROOT / "classify/train.py"), *made, "--name", "two")
    assert done.returncode == 0, done.stderr
    two = one.with_name("two")

    states = [(read_checkpoint(run / "weights/epoch1.pt").training or {})["model"] for run in (one, two)]
    for key, value in states[0]["state_dict"].items():
        assert torch.allclose(value, states[1]["state_dict"][key], rtol=0, atol=1e-5), key
    rows, others = (list(csv.DictReader((run / "results.csv").open(newline=""))) for run in (one, two))
    assert len(rows) == len(others) == 2 and rows[0]["train/loss"] != rows[1]["train/loss"], "it learns"
    for name in rows[0]:
        values, expected = ([float(row[name]) for row in table] for table in (others, rows))
        assert values == pytest.approx(expected, abs=1e-5), name
    tables = [(run / "predictions.csv").read_text() for run in (one, two)]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 26


def test_a_killed_process_is_restarted_and_the_result_is_the_same(flags: list[str]) -> None:
    whole = _run(*TORCHRUN, str(ROOT / "train.py"), *flags, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("Starting training for 12 epochs") == 1, "one process logs"

    runs = Path(flags[-1])
    last = runs / "killed" / "weights" / "last.pt"
    command = [*TORCHRUN, "--max-restarts", "1", str(ROOT / "train.py"), *flags, "--name", "killed"]
    with subprocess.Popen(
        command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as agent:
        while not last.exists():
            assert agent.poll() is None
            time.sleep(0.01)
        os.kill(_worker(agent.pid, rank=1), signal.SIGKILL)
        text = agent.communicate(timeout=120)[0]
    assert agent.returncode == 0, text
    assert "torchrun has restarted the processes: continuing in" in text
    assert not (runs / "killed2").exists()
    for name in ("last", "best"):
        states = [read_checkpoint(runs / run / "weights" / f"{name}.pt").state for run in ("whole", "killed")]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items()), name
    tables = [(runs / run / "results.csv").read_text() for run in ("whole", "killed")]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 13


def _worker(agent: int, rank: int) -> int:
    """Return the process id of the worker with a rank that an agent of torchrun has started."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if parent == agent and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"agent {agent} has no process of rank {rank}")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["--data", "nowhere.yaml"], "--data nowhere.yaml"),
        (["--batch-size", "5"], "--batch-size 5: expected a multiple of 2"),
    ],
)
def test_an_error_is_reported_once(flags: list[str], change: list[str], words: str) -> None:
    done = _run(*TORCHRUN, str(ROOT / "train.py"), *flags, *change)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] == [
        line for line in done.stderr.splitlines() if words in line
    ][:1]
    assert done.stderr.count(words) == 1


def test_a_failure_of_one_process_ends_both(flags: list[str], tmp_path: Path) -> None:
    done = _run(*TORCHRUN, "-m", "tests.utils.train.together", "fails", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr.count("this one fails") == 1
