"""Real trainings that are stopped or killed on the way end as if nothing had happened, bit for bit."""

from __future__ import annotations

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.weights import read_checkpoint
from tests.utils.train.small import small_models, small_set
from utils.base.paths import ROOT

EPOCHS, BATCHES = 6, 8
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # bits depend on the number of threads


class Course:
    """One training, in as many folders as wanted."""

    def __init__(self, home: Path) -> None:
        self.home = home
        data, (_, model) = small_set(home, train=4 * BATCHES), small_models(home)
        self.flags = ["--data", str(data), "--cfg", str(model), "--weights", "", "--imgsz", "64"]
        self.flags += ["--epochs", str(EPOCHS), "--batch-size", "4", "--workers", "0", "--device", "cpu"]
        self.flags += ["--noplots", "--noautoanchor", "--save-steps", "1", "--project", str(home / "runs")]
        self.flags += ["--optimizer", "AdamW", "--multi-scale", "--exist-ok"]

    def named(self, name: str) -> list[str]:
        return [*self.flags, "--name", name]

    def folder(self, name: str) -> Path:
        return self.home / "runs" / name

    def outcome(self, name: str) -> dict[str, str]:
        """Digests of what a run left: both checkpoints, and its table."""
        found = {}
        for which in ("last", "best"):
            state = read_checkpoint(self.folder(name) / "weights" / f"{which}.pt").state
            digest = hashlib.sha256()
            for key, value in state.items():
                digest.update(key.encode() + value.numpy().tobytes())
            found[which] = digest.hexdigest()
        return found | {"table": (self.folder(name) / "results.csv").read_text()}


def _start(*flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "train.py"), *flags]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
    )


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course, and what comes out of it when nobody disturbs it."""
    made = Course(tmp_path_factory.mktemp("a course"))
    with _start(*made.named("whole")) as child:
        text = child.communicate(timeout=120)[0]
    assert child.returncode == 0, text
    return made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_step_and_saves(course: Course, number: signal.Signals) -> None:
    name = number.name
    last = course.folder(name) / "weights" / "last.pt"
    with _start(*course.named(name)) as child:
        while not last.exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(number)
        text = child.communicate(timeout=60)[0]
    assert child.returncode == 128 + number, text
    assert "stopping after this step" in text and "Traceback" not in text
    assert f'To go on: python train.py --resume "{last}"' in text or "--resume" in text
    assert (read_checkpoint(last).training or {})["progress"]["epoch"] < EPOCHS

    with _start("--resume", str(last)) as child:
        text = child.communicate(timeout=120)[0]
    assert child.returncode == 0, text
    assert course.outcome(name) == course.outcome("whole")


def _kill(course: Course, name: str, kills: int, seed: int) -> int:
    """Kill a training so often, if it does not end before; how often it was killed."""
    words = [str(kills), str(seed), str(course.folder(name)), *course.named(name)]
    command = [sys.executable, "-m", "tests.utils.train.killed", *words]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= min(kills, 1), "nothing was killed"
    assert course.outcome(name) == course.outcome("whole")
    with (course.folder(name) / "results.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(EPOCHS)]
    assert not list(course.folder(name).glob("weights/.*.part")), "half-written files are swept up"
    return int(done.stdout)


def test_20_kills_at_any_moment_change_nothing(course: Course) -> None:
    killed = 0
    for turn in range(20):
        killed += _kill(course, f"killed{turn}", kills=20 - killed, seed=turn)
        if killed == 20:
            break
    assert killed == 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_kills_change_nothing(course: Course, seed: int) -> None:
    _kill(course, f"killed{seed}", kills=20, seed=seed)
