"""Journeys through `train.py --evolve`: tiny real trainings, and a process that is killed."""

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


class Course:
    """One evolution, in as many folders as wanted."""

    def __init__(self, home: Path) -> None:
        self.project = home / "runs"
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

    def outcome(self, name: str) -> dict[str, str]:
        return {file: (self.project / name / file).read_text() for file in FILES}

    def kill_when(self, name: str, moment: Callable[[], bool], orphan: bool) -> None:
        """Kill an evolution, and what it trains, unless that is to live on as an orphan."""
        with self.start(name) as child:
            while not moment():
                assert child.poll() is None, "it ended before it could be killed"
                time.sleep(0.01)
            child.kill()
        if not orphan:
            for pid in trainings(self.project / name):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def course(tmp_path_factory: pytest.TempPathFactory) -> Course:
    """The course, and what comes out of it when nobody disturbs it."""
    made = Course(tmp_path_factory.mktemp("an evolution"))
    (made.project.parent / "said.txt").write_text(made.finish("whole"))
    return made


def test_an_evolution_leaves_everything_that_users_look_for(course: Course) -> None:
    said, folder = (course.project.parent / "said.txt").read_text(), course.project / "whole"
    with (folder / "evolve.csv").open(newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]

    assert len(rows) == 1 + CANDIDATES and len({tuple(row) for row in rows}) == 1 + CANDIDATES
    assert f"3 of 3 candidates to train, {EPOCHS} epochs each" in said
    assert "candidate 0 (1/3): fitness" in said and "for 2 more" in said
    assert load_hyp(str(folder / "hyp_evolve.yaml"))["lr0"] == float(rows[1][7])
    assert (folder / "evolve.png").stat().st_size > 10_000
    assert not list(folder.rglob("*.pt")), "weights of candidates are of no use"


def test_stopped_and_killed_it_goes_on_as_if_nothing_had_happened(course: Course) -> None:
    folder = course.project / "stopped"
    last = [folder / "candidates" / name / "run" / "weights" / "last.pt" for name in ("0000", "0001")]
    with course.start("stopped") as child:
        while not last[0].is_file():
            assert child.poll() is None
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        said = child.communicate(timeout=60)[0]
    assert child.returncode == 130 and "Traceback" not in said
    assert f"to go on: python train.py --evolve {CANDIDATES} --resume" in said
    assert not trainings(folder)

    course.kill_when("stopped", last[1].is_file, orphan=False)
    said = course.finish("stopped")

    assert "2 of 3 candidates to train" in said
    assert course.outcome("stopped") == course.outcome("whole")
    for name in ("0000", "0001"):
        assert "Resuming training" in (folder / "candidates" / name / "log.txt").read_text()


@pytest.mark.slow
def test_a_training_that_outlives_its_evolution_is_waited_for(course: Course) -> None:
    last = course.project / "orphan" / "candidates" / "0001" / "run" / "weights" / "last.pt"
    course.kill_when("orphan", last.is_file, orphan=True)
    said = course.finish("orphan")

    assert "2 of 3 candidates to train" in said and course.outcome("orphan") == course.outcome("whole")
    assert "Resuming" not in (last.parents[2] / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_any_moment_change_nothing(course: Course, seed: int) -> None:
    draw, name = random.Random(seed), f"random{seed}"
    for _ in range(4):
        until = time.monotonic() + draw.uniform(2, 9)
        course.kill_when(name, lambda until=until: time.monotonic() > until, draw.random() < 0.3)  # type: ignore[misc]
    course.finish(name)

    assert course.outcome(name) == course.outcome("whole")


def test_what_no_candidate_could_fix_ends_it_at_once(course: Course) -> None:
    with course.start("mistaken", "--data", "nowhere.yaml") as child:
        said = child.communicate(timeout=60)[0]
    assert child.returncode == 2 and "nowhere.yaml" in said and "Traceback" not in said
