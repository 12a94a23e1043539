"""Commands that are killed at random moments: the next one works, and no partial file counts as complete."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from models.weights import read_checkpoint
from tests.utils.train.small import small_models, small_set
from utils.base.paths import ROOT
from utils.data.dataset_yaml import read_data_yaml
from utils.data.scan import load_labels

pytestmark = pytest.mark.slow
ROUNDS = 10  # of each command
TRAIN = [
    *("--weights", "", "--img", 64, "--epochs", 1, "--batch-size", 8, "--workers", 0, "--device", "cpu"),
    *("--loggers", "none", "--noplots"),
]


def finish(command: Sequence[object]) -> str:
    """Run a command to its end; it must succeed without a traceback."""
    done = subprocess.run(
        [sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def kill_after(command: Sequence[object], seconds: float) -> bool:
    """Start a command in a group of its own and kill the group; returns whether it was still running."""
    process = subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    return False


def rounds(command: Sequence[object], check: Callable[[], None], count: int = ROUNDS) -> None:
    """Kill a command `count` times at random moments of its duration; check the files each time."""
    random_ = random.Random(0)
    start = time.monotonic()
    finish(command)
    duration = time.monotonic() - start
    killed = 0
    for _ in range(count):
        start = time.monotonic()
        if kill_after(command, random_.uniform(0.3, 1.0) * duration):
            killed += 1
        else:  # it is faster now: other programs have ended, or files are cached
            duration = min(duration, time.monotonic() - start)
        check()
    assert killed > count / 2
    finish(command)
    check()


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """Train a small model for an epoch; return its run folder."""
    data, (model, _) = small_set(tmp_path / "data", train=40, val=8), small_models(tmp_path)
    finish(["train.py", "--cfg", model, *TRAIN, "--data", data, "--project", tmp_path, "--name", "run"])
    return tmp_path / "run"


def test_export(trained: Path) -> None:
    import onnx

    def check() -> None:
        for file in trained.rglob("*.onnx"):
            onnx.checker.check_model(str(file))

    weights = trained / "weights/best.pt"
    rounds(["export.py", "--weights", weights, "--include", "onnx", "--img", 64], check)


def test_graft(trained: Path) -> None:
    def check() -> None:
        if out.exists():
            read_checkpoint(out)

    out = trained / "grafted.pt"
    weights, model = trained / "weights/best.pt", trained.parent / "gated.yaml"
    rounds(["graft.py", "--weights", weights, "--cfg", model, "--out", out], check)


def test_packing_of_shards(trained: Path) -> None:
    def check() -> None:
        if (out / "data.yaml").exists():
            data = read_data_yaml(out / "data.yaml")
            assert len(load_labels(data.train).images) == 40
            assert len(load_labels(data.val).images) == 8

    out = trained / "shards"
    rounds(
        ["-m", "utils.data", "pack", trained.parent / "data/data.yaml", "--output", out, "--exist-ok"], check
    )


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_caches_of_labels_and_images(cache: str, trained: Path) -> None:
    """The table of the whole training is that of one without caches."""
    data = trained.parent / "data"
    run = ["train.py", "--cfg", trained.parent / "plain.yaml", *TRAIN, "--data", data / "data.yaml"]
    run += ["--cache", cache, "--project", trained, "--name", "cached", "--exist-ok"]

    def check() -> None:
        for file in data.rglob("*.npy"):
            assert np.load(file).shape == (64, 64, 3)

    rounds(run, check)
    with (trained / "results.csv").open() as one, (trained / "cached/results.csv").open() as other:
        assert one.read() == other.read()


def test_compare(trained: Path) -> None:
    models = [trained.parent / "plain.yaml", trained.parent / "gated.yaml"]
    command = ["compare.py", "--cfg", *models, *TRAIN, "--data", trained.parent / "data/data.yaml"]
    command += ["--seeds", 0, 1, "--project", trained, "--name", "both", "--exist-ok", "--rounds", 0]

    def check() -> None:
        report = trained / "both/report.md"
        assert not report.exists() or "2 models, seeds 0, 1" in report.read_text()

    random_ = random.Random(1)  # trained models are not trained again, so each round comes further
    killed = 0
    for _ in range(ROUNDS):
        killed += kill_after(command, random_.uniform(3, 9))
        check()
    assert killed > 2
    finish(command)
    check()


def test_evolve(trained: Path) -> None:
    command = ["train.py", "--cfg", trained.parent / "plain.yaml", *TRAIN, "--evolve", 3]
    command += ["--data", trained.parent / "data/data.yaml", "--project", trained, "--name", "evolved"]
    kill_after(command, 15)
    for seconds in (8, 12, 16, 20):
        kill_after([*command, "--resume", trained / "evolved"], seconds)
    finish([*command, "--resume", trained / "evolved"])
    with (trained / "evolved/evolve.csv").open() as table:
        assert len(table.readlines()) == 4
