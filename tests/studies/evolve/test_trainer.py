"""How a candidate's training ends, with a process that only plays it."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from studies.evolve.records import Journal, Result, Trial
from studies.evolve.trainer import KilledError, Trainer
from studies.jobs.ray_cluster import LostError
from utils.base.errors import ConfigError
from utils.base.processes import share_out
from utils.train.run_dir import COLUMNS, METRICS

Play = Callable[..., Result]
TRIAL = Trial(2, {"lr0": 0.01}, ("--epochs=1",))


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Play:
    """Train with a script in place of train.py; RUN stands for the folder of the run."""

    def run(script: str, trial: Trial = TRIAL) -> Result:
        def command(folder: Path, flags: Sequence[str], device: str) -> list[str]:
            head = f"import os, pathlib, sys; RUN = pathlib.Path({str(folder)!r})\n"
            return [sys.executable, "-c", head + textwrap.dedent(script)]

        monkeypatch.setattr("studies.evolve.trainer.training_command", command)
        return Trainer(tmp_path, share_out(1, "cpu"))(trial)

    return run


def table(figure: float) -> str:
    row = ",".join(map(str, [0] * 4 + [figure] * 7 + [0] * 3))
    return f"RUN.mkdir(); (RUN / 'results.csv').write_text('''{','.join(COLUMNS)}\n{row}\n''')"


def test_the_figures_of_the_last_epoch_are_the_result(play: Play, tmp_path: Path) -> None:
    result = play(table(0.25))

    assert result.metrics == dict.fromkeys(METRICS, 0.25) and not result.failure
    assert Journal(tmp_path).results == {2: result}
    assert play("sys.exit('not called')") == result, "what is there is not trained again"


def test_what_another_evolution_left_in_the_place_does_not_count(play: Play) -> None:
    play(table(0.25))
    other = play(table(0.5), Trial(2, {"lr0": 0.02}, TRIAL.flags))

    assert other.map50 == 0.5 and other.hyp == {"lr0": 0.02}


def test_a_failure_is_a_result_and_may_be_tried_again(play: Play) -> None:
    script = "RUN.mkdir(); print('ERROR: the loss is not a number', file=sys.stderr); sys.exit(1)"
    failed = play(script)

    assert failed.failure == "the loss is not a number" and failed.map50 == 0 and not failed.metrics
    assert play(table(0.5)).map50 == 0.5
    assert play(table(float("nan")), Trial(3, {}, ())).failure == "its figures are no numbers"


def test_a_mistake_of_the_user_is_an_error(play: Play) -> None:
    with pytest.raises(ConfigError, match="candidate 0002: --data x.yaml: no such file"):
        play("print('ERROR: --data x.yaml: no such file'); sys.exit(2)")


def test_who_is_killed_or_told_to_end_can_go_on(play: Play, tmp_path: Path) -> None:
    with pytest.raises(KilledError, match="killed by signal 9"):
        play("RUN.mkdir(); os.kill(os.getpid(), 9)")
    with pytest.raises(LostError, match="was told to end"):
        play("sys.exit(143)")
    assert (tmp_path / "candidates" / "0002" / "run").is_dir() and not Journal(tmp_path).results
