"""`train.py --evolve` end to end: tiny trainings, and processes that are killed."""

from __future__ import annotations

import csv
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.studies.evolve.small import small_flags, trainings
from utils.base.paths import ROOT
from utils.train.hyp import load_hyp

CANDIDATES, EPOCHS = 3, 8
FILES = ("evolve.csv", "hyp_evolve.yaml")


class Scenario:
    """The same evolution, in several folders."""

    def __init__(self, home: Path) -> None:
        self.project = home / "runs"
        self.seconds = 0.0  # of the whole evolution
        self.flags = [*small_flags(home, EPOCHS), "--project", str(self.project), "--evolve", str(CANDIDATES)]

    def start(self, name: str, *more: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(ROOT / "train.py"), *self.flags, "--name", name, "--exist-ok", *more]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=subprocess.STDOUT, text=True, env=environment)

    def finish(self, name: str, *more: str) -> str:
        with self.start(name, *more) as child:
            text = child.communicate(timeout=240)[0]
        assert child.returncode == 0, text
        return text

    def tables(self, name: str) -> dict[str, str]:
        return {file: (self.project / name / file).read_text() for file in FILES}

    def kill_when(self, name: str, moment: Callable[[], bool], orphan: bool) -> bool:
        """Kill an evolution when `moment` holds, and its trainings, unless they become orphans.

        Return whether it was killed, not finished before.
        """
        with self.start(name) as child:
            while not moment():
                if child.poll() is not None:
                    assert child.returncode == 0, child.communicate()[0]
                    return False
                time.sleep(0.01)
            child.kill()
        if not orphan:
            for pid in trainings(self.project / name):
                os.kill(pid, signal.SIGKILL)
        return True


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """The scenario, after an uninterrupted evolution."""
    made = Scenario(tmp_path_factory.mktemp("an evolution"))
    start = time.monotonic()
    (made.project.parent / "output.txt").write_text(made.finish("whole"))
    made.seconds = time.monotonic() - start
    return made


def test_an_evolution_writes_its_tables_and_plots(scenario: Scenario) -> None:
    output, folder = (scenario.project.parent / "output.txt").read_text(), scenario.project / "whole"
    with (folder / "evolve.csv").open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]

    assert len(rows) == 1 + CANDIDATES and len({tuple(row) for row in rows}) == 1 + CANDIDATES
    assert f"3 of 3 candidates to train, {EPOCHS} epochs each" in output
    assert "candidate 0 (1/3): fitness" in output and "for 2 more" in output
    assert load_hyp(str(folder / "hyp_evolve.yaml"))["lr0"] == float(rows[1][7])
    assert (folder / "evolve.png").stat().st_size > 10_000
    assert not list(folder.rglob("*.pt")), "weights of candidates are removed"


def test_an_evolution_that_was_stopped_and_killed_gives_the_same_result(scenario: Scenario) -> None:
    folder = scenario.project / "stopped"
    last = [folder / "candidates" / name / "run" / "weights" / "last.pt" for name in ("0000", "0001")]
    with scenario.start("stopped") as child:
        while not last[0].is_file():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        output = child.communicate(timeout=60)[0]
    assert child.returncode == 130 and "Traceback" not in output
    assert f"to resume: python train.py --evolve {CANDIDATES} --resume" in output
    assert not trainings(folder)

    assert scenario.kill_when("stopped", last[1].is_file, orphan=False)
    output = scenario.finish("stopped")

    assert "2 of 3 candidates to train" in output
    assert scenario.tables("stopped") == scenario.tables("whole")
    for name in ("0000", "0001"):
        assert "Resuming training" in (folder / "candidates" / name / "log.txt").read_text()


@pytest.mark.slow
def test_an_orphaned_training_is_waited_for(scenario: Scenario) -> None:
    last = scenario.project / "orphan" / "candidates" / "0001" / "run" / "weights" / "last.pt"
    assert scenario.kill_when("orphan", last.is_file, orphan=True)
    output = scenario.finish("orphan")

    assert "2 of 3 candidates to train" in output and scenario.tables("orphan") == scenario.tables("whole")
    assert "Resuming" not in (last.parents[2] / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_moment_do_not_change_the_result(scenario: Scenario, seed: int) -> None:
    draw, name, kills = random.Random(seed), f"random{seed}", 0
    for _ in range(4):
        until = time.monotonic() + draw.uniform(0.1, 0.6) * scenario.seconds
        kills += scenario.kill_when(name, lambda until=until: time.monotonic() > until, draw.random() < 0.3)  # type: ignore[misc]  # `until`
    scenario.finish(name)

    assert kills
    assert scenario.tables(name) == scenario.tables("whole")


def test_an_invalid_flag_ends_the_evolution_at_once(scenario: Scenario) -> None:
    with scenario.start("invalid", "--data", "nowhere.yaml") as child:
        output = child.communicate(timeout=60)[0]
    assert child.returncode == 2 and "nowhere.yaml" in output and "Traceback" not in output
