"""Trainings that are stopped or killed and then resumed end bit-identical to an uninterrupted one."""

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
import yaml

from models.weights import read_checkpoint
from tests.studies.classifiers import CONFIG as CLASSIFY_CONFIG
from tests.studies.classifiers import class_folders
from tests.utils.train.small import CONFIG, SEGMENT_CONFIG, small_set, with_dropping, with_polygons
from utils.base.paths import ROOT
from utils.tasks.task import get_task

EPOCHS, BATCHES = 6, 8
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}  # the last bits depend on the number of threads


class Scenario:
    """The same training in several folders; `whole` is the uninterrupted one.

    Its model drops channels and branches at random, so the result depends on every random number.
    """

    def __init__(self, home: Path, task: str) -> None:
        self.home = home
        self.script = get_task(task).scripts[0]
        if task == "classify":
            data, config = class_folders(home, train=4 * BATCHES // 5 + 1), CLASSIFY_CONFIG
            rows = [[-1, 1, "VANStage", [16, 3, 2, {"ratio": 2, "k": 7, "drop_path": 0.3}]]]
            config = {**config, "backbone": [*config["backbone"], *rows]}
            own = ["--imgsz", "32", "--dropout", "0.3"]
        else:
            data = small_set(home, train=4 * BATCHES)
            config = with_dropping(SEGMENT_CONFIG if task == "segment" else CONFIG)
            own = ["--imgsz", "64", "--noautoanchor", "--multi-scale"]
        if task == "segment":
            with_polygons(home)
        model = home / "model.yaml"
        model.write_text(yaml.safe_dump(config))
        self.flags = ["--data", str(data), "--cfg", str(model), "--weights", "", *own]
        self.flags += ["--epochs", str(EPOCHS), "--batch-size", "4", "--workers", "0", "--device", "cpu"]
        self.flags += ["--noplots", "--save-steps", "1", "--project", str(home / "runs")]
        self.flags += ["--optimizer", "AdamW", "--exist-ok"]
        self._whole = self.start(*self.named("whole"))  # runs while others are stopped

    def start(self, *flags: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / self.script), *flags]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=ENVIRONMENT
        )

    def named(self, name: str) -> list[str]:
        return [*self.flags, "--name", name]

    def folder(self, name: str) -> Path:
        return self.home / "runs" / name

    def assert_equals_whole(self, name: str) -> None:
        text = self._whole.communicate(timeout=120)[0] if self._whole.poll() is None else ""
        assert self._whole.returncode == 0, text
        assert self._result(name) == self._result("whole")

    def _result(self, name: str) -> dict[str, str]:
        """Return digests of both checkpoints of a run, and its table."""
        found = {}
        for which in ("last", "best"):
            state = read_checkpoint(self.folder(name) / "weights" / f"{which}.pt").state
            digest = hashlib.sha256()
            for key, value in state.items():
                digest.update(key.encode() + value.numpy().tobytes())
            found[which] = digest.hexdigest()
        return found | {"table": (self.folder(name) / "results.csv").read_text()}


@pytest.fixture(scope="module", params=["detect", "segment", "classify"])
def scenario(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """The training of a task, started once without interruption."""
    return Scenario(tmp_path_factory.mktemp("with a space"), request.param)


@pytest.mark.parametrize(
    ("scenario", "number"),
    [
        *(("detect", signal.SIGINT), ("detect", signal.SIGTERM), ("segment", signal.SIGINT)),
        *(pytest.param(task, signal.SIGTERM, marks=pytest.mark.slow) for task in ("segment", "classify")),
    ],
    indirect=["scenario"],
)
def test_a_signal_ends_the_run_after_a_step_and_it_resumes(
    scenario: Scenario, number: signal.Signals
) -> None:
    name = number.name
    last = scenario.folder(name) / "weights" / "last.pt"
    with scenario.start(*scenario.named(name)) as child:
        while not last.exists():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(number)
        text = child.communicate(timeout=60)[0]
    assert child.returncode == 128 + number, text
    assert "stopping after this step" in text and "Traceback" not in text
    assert "--resume" in text
    assert (read_checkpoint(last).training or {})["progress"]["epoch"] < EPOCHS

    with scenario.start("--resume", str(last)) as child:
        text = child.communicate(timeout=120)[0]
    assert child.returncode == 0, text
    scenario.assert_equals_whole(name)


def _kill(scenario: Scenario, name: str, kills: int, seed: int) -> int:
    """Kill and resume a training up to `kills` times; return how often it was killed before it ended."""
    words = [scenario.script, str(kills), str(seed), str(scenario.folder(name)), *scenario.named(name)]
    words += ["--workers", "1", "--cache"] if seed % 2 else []  # which do not change the result either
    command = [sys.executable, "-m", "tests.utils.train.killed", *words]
    done = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= min(kills, 1), "nothing was killed"
    scenario.assert_equals_whole(name)
    with (scenario.folder(name) / "results.csv").open(newline="") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == [str(epoch) for epoch in range(EPOCHS)]
    assert not list(scenario.folder(name).glob("weights/.*.part")), "unfinished files are removed"
    return int(done.stdout)


def test_20_kills_at_any_moment_do_not_change_the_result(scenario: Scenario) -> None:
    wanted = 20 if scenario.script == "train.py" else 6
    killed = 0
    for turn in range(wanted):
        killed += _kill(scenario, f"killed{turn}", kills=min(wanted // 2, wanted - killed), seed=turn)
        if killed == wanted:
            break
    assert killed == wanted


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_more_kills_do_not_change_the_result(scenario: Scenario, seed: int) -> None:
    _kill(scenario, f"killed{seed}", kills=20, seed=seed)
