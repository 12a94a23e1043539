"""Several processes train one model: real ones, started by torchrun, over gloo."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from models.weights import read_checkpoint
from tests.known import SHARED, needs_shared
from tests.utils.train.small import small_models, small_set
from utils.base.paths import ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=180)


def _both(tmp_path: Path, task: str, *more: str) -> tuple[dict, dict]:
    """What one process finds, and what two do."""
    module = ("-m", "tests.utils.train.together", task)
    for name, start in (("one", (sys.executable,)), ("two", TORCHRUN)):
        done = _run(*start, *module, str(tmp_path / name), *more)
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name, weights_only=True) for name in ("one", "two"))
    return one, two


def test_two_processes_of_8_are_one_of_16(tmp_path: Path) -> None:
    one, two = _both(tmp_path, "steps")
    assert torch.allclose(one["losses"], two["losses"], rtol=0, atol=1e-5)
    for key, value in one["weights"].items():
        assert torch.allclose(value.float(), two["weights"][key].float(), rtol=0, atol=1e-5), key


@needs_shared
def test_two_processes_measure_what_one_does(tmp_path: Path) -> None:
    one, two = _both(tmp_path, "measured", str(SHARED / "weights" / "bccd_yolov5n.pt"))
    assert one["seen"] == two["seen"] == 72 and one["map50"] > 0.3
    assert one == two, "to the last bit, and image by image"


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A short training; 15 images leave a last batch of 3 for the two."""
    home = tmp_path_factory.mktemp("together")
    data, (_, model) = small_set(home, train=15, val=5), small_models(home)
    made = ["--data", str(data), "--cfg", str(model), "--weights", "", "--imgsz", "64", "--device", "cpu"]
    made += ["--epochs", "12", "--batch-size", "4", "--workers", "0", "--noplots", "--noautoanchor"]
    return [*made, "--save-steps", "1", "--project", str(home / "runs")]


def test_a_killed_process_is_restarted_and_nothing_is_lost(flags: list[str]) -> None:
    whole = _run(*TORCHRUN, str(ROOT / "train.py"), *flags, "--name", "whole")
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.count("Starting training for 12 epochs") == 1, "one process talks"

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
    assert "torchrun has restarted the processes: going on in" in text
    assert not (runs / "killed2").exists()
    for name in ("last", "best"):
        states = [read_checkpoint(runs / run / "weights" / f"{name}.pt").state for run in ("whole", "killed")]
        assert all(torch.equal(value, states[1][key]) for key, value in states[0].items()), name
    tables = [(runs / run / "results.csv").read_text() for run in ("whole", "killed")]
    assert tables[0] == tables[1] and len(tables[0].splitlines()) == 13


def _worker(agent: int, rank: int) -> int:
    """The process that an agent of torchrun has started with a rank."""
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
def test_an_error_is_shown_once(flags: list[str], change: list[str], words: str) -> None:
    done = _run(*TORCHRUN, str(ROOT / "train.py"), *flags, *change)
    assert done.returncode == 1
    assert [line for line in done.stderr.splitlines() if line.startswith("ERROR: ")] == [
        line for line in done.stderr.splitlines() if words in line
    ][:1]
    assert done.stderr.count(words) == 1


def test_a_failure_of_one_ends_both(flags: list[str], tmp_path: Path) -> None:
    done = _run(*TORCHRUN, "-m", "tests.utils.train.together", "fails", str(tmp_path / "x"))
    assert done.returncode == 1
    assert done.stderr.count("this one fails") == 1
