"""The ways in which a training can end, with a script in place of train.py."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from studies.evolve.trials import Journal, Result, Trial
from studies.jobs.job import KilledError, LostError
from studies.jobs.local_runner import LocalRunner
from utils.base.errors import ConfigError
from utils.tasks.task import Task

RunScript = Callable[..., Result]
TRIAL = Trial(2, {"lr0": 0.01}, ("--epochs=1",))


@pytest.fixture
def run_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunScript:
    """Train with a script in place of train.py; RUN is the folder that it would write to."""

    def run(script: str, trial: Trial = TRIAL) -> Result:
        def command(folder: Path, flags: Sequence[str], device: str, task: str) -> list[str]:
            head = f"import os, pathlib, sys; RUN = pathlib.Path({str(folder)!r})\n"
            return [sys.executable, "-c", head + textwrap.dedent(script)]

        monkeypatch.setattr("studies.jobs.local_runner.training_command", command)
        return LocalRunner(tmp_path, 1, "cpu")(trial)

    return run


def table(metric: float) -> str:
    row = ",".join(map(str, [0] * 4 + [metric] * 7 + [0] * 3))
    return f"RUN.mkdir(); (RUN / 'results.csv').write_text('''{','.join(Task().columns)}\n{row}\n''')"


def test_the_result_has_the_metrics_of_the_last_epoch(run_script: RunScript, tmp_path: Path) -> None:
    result = run_script(table(0.25))

    assert result.metrics == dict.fromkeys(Task().measured, 0.25) and not result.failure
    assert Journal(tmp_path).results == {2: result}
    assert run_script("sys.exit('not called')") == result, "a complete candidate is not trained again"


def test_the_folder_of_another_evolution_is_replaced(run_script: RunScript) -> None:
    run_script(table(0.25))
    other = run_script(table(0.5), Trial(2, {"lr0": 0.02}, TRIAL.flags))

    assert other.metrics["metrics/mAP_0.5"] == 0.5 and other.hyp == {"lr0": 0.02}


def test_a_failure_is_a_result_and_can_be_repeated(run_script: RunScript) -> None:
    script = "RUN.mkdir(); print('ERROR: the loss is not a number', file=sys.stderr); sys.exit(1)"
    failed = run_script(script)

    assert failed.failure == "the loss is not a number" and not failed.metrics
    assert run_script(table(0.5)).metrics["metrics/mAP_0.5"] == 0.5
    assert run_script(table(float("nan")), Trial(3, {}, ())).failure == "its metrics are not finite"


def test_a_usage_error_of_train_is_an_error(run_script: RunScript) -> None:
    with pytest.raises(ConfigError, match="candidate 0002: --data x.yaml: no such file"):
        run_script("print('ERROR: --data x.yaml: no such file'); sys.exit(2)")


def test_a_killed_or_stopped_training_can_be_resumed(run_script: RunScript, tmp_path: Path) -> None:
    with pytest.raises(KilledError, match="killed by signal 9"):
        run_script("RUN.mkdir(); os.kill(os.getpid(), 9)")
    with pytest.raises(LostError, match="was asked to end"):
        run_script("sys.exit(143)")
    assert (tmp_path / "candidates" / "0002" / "run").is_dir() and not Journal(tmp_path).results
