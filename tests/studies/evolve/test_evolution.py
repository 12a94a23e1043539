"""An evolution with simulated trainings."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import train
from studies.evolve.trials import Journal, Result, Trial
from studies.jobs.job import KilledError
from utils.base.errors import ConfigError, YoloError
from utils.tasks.task import Task
from utils.train.hyp import load_hyp
from utils.train.run_dir import TrainResult
from utils.train.train_options import parse_options

Search = Callable[..., TrainResult]


class FakeRunner:
    """Replaces `LocalRunner`: a candidate is the better, the nearer its hsv_h is to 0.06."""

    trained: list[int] = []
    fails: dict[int, str] = {}
    interrupt_at = -1
    uneven = False

    def __init__(self, home: Path, jobs: int, device: str, threads: int) -> None:
        self.home, self.jobs = home, jobs

    def __call__(self, trial: Trial) -> Result:
        trial.save(self.home)
        if self.uneven:
            time.sleep(random.random() / 20)
        if trial.index == self.interrupt_at:
            raise KeyboardInterrupt
        self.trained.append(trial.index)
        if failure := self.fails.get(trial.index):
            if "signal" in failure:
                raise KilledError(trial.title, failure)
            return Result(trial.index, trial.hyp, failure=failure)
        quality = 1 - 10 * abs(trial.hyp["hsv_h"] - 0.06)
        return Result(trial.index, trial.hyp, dict.fromkeys(Task().measured, quality), 2.0)

    def stop(self) -> None:
        """Do nothing."""


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[FakeRunner]]:
    class Fresh(FakeRunner):
        trained: list[int] = []
        fails: dict[int, str] = {}

    monkeypatch.setattr("studies.jobs.pool.LocalRunner", Fresh)
    monkeypatch.setattr("studies.evolve.evolution.minutes_of_training", lambda options: 1.5)
    yield Fresh


@pytest.fixture
def search(runner: type[FakeRunner], tmp_path: Path) -> Search:
    """`train.py --evolve N ...` below tmp_path."""

    def run(generations: int, *flags: str, name: str = "exp") -> TrainResult:
        fixed = ["--weights", "", "--cfg", "yolov5n.yaml", "--project", str(tmp_path), "--name", name]
        return train.train(parse_options(["--evolve", str(generations), *fixed, "--noplots", *flags]))

    return run


def tables(folder: Path) -> dict[str, str]:
    return {name: (folder / name).read_text() for name in ("evolve.csv", "hyp_evolve.yaml")}


def test_the_best_hyperparameters_are_written_for_hyp(search: Search) -> None:
    result = search(60)
    best = load_hyp(str(result.save_dir / "hyp_evolve.yaml"))
    text = (result.save_dir / "hyp_evolve.yaml").read_text()

    assert abs(best["hsv_h"] - 0.06) < 0.01, "it started from 0.015"
    assert result.fitness == pytest.approx(result.metrics["metrics/mAP_0.5"]) and result.fitness > 0.9
    assert text.startswith("# The best of 60 candidates: number ") and "# metrics/mAP_0.5: 0.9" in text


def test_the_table_has_the_metrics_and_then_the_hyperparameters(search: Search) -> None:
    folder = search(5).save_dir
    lines = (folder / "evolve.csv").read_text().splitlines()
    names = [cell.strip() for cell in lines[0].split(",")]

    assert len(lines) == 6 and all(len(line) == 21 * len(names) - 1 for line in lines)
    assert tuple(names[:7]) == Task().measured and names[7:9] == ["lr0", "lrf"] and names[-1] == "copy_paste"
    assert lines[1].split(",")[7] == f"{0.01:20.5g}"


def test_a_resumed_evolution_gives_the_same_tables(
    search: Search, runner: type[FakeRunner], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = tables(search(8, name="whole").save_dir)
    for index in (0, 3, 6):
        runner.interrupt_at = index
        with pytest.raises(KeyboardInterrupt):
            search(8, "--exist-ok", name="stopped")
    runner.interrupt_at = -1
    runner.trained.clear()
    stopped = tables(
        train.train(parse_options(["--evolve", "8", "--resume", str(tmp_path / "stopped")])).save_dir
    )

    assert stopped == whole
    assert runner.trained == [6, 7]


@pytest.mark.parametrize("lost", ["trial.json", "hyp.yaml"])
def test_a_candidate_with_missing_files_is_proposed_again(search: Search, tmp_path: Path, lost: str) -> None:
    whole = tables(search(5).save_dir)
    for file in (lost, "result.json"):
        (tmp_path / "exp" / "candidates" / "0004" / file).unlink()

    assert tables(search(5, "--resume").save_dir) == whole


def test_the_time_is_estimated_before_the_first_candidate(
    search: Search, runner: type[FakeRunner], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        search(4)
    lines = [record.getMessage() for record in caplog.records]
    estimated = next(
        number for number, line in enumerate(lines) if line.startswith("time: about 6 min for all")
    )
    assert estimated < next(number for number, line in enumerate(lines) if line.startswith("candidate 0"))


def test_more_generations_continue_an_evolution(search: Search, runner: type[FakeRunner]) -> None:
    search(4)
    longer = search(7, "--exist-ok")

    assert runner.trained == list(range(7))
    assert tables(longer.save_dir) == tables(search(7, name="at once").save_dir)


def test_parallel_candidates_do_not_depend_on_speed(search: Search, runner: type[FakeRunner]) -> None:
    runner.uneven = True
    one, two = (search(15, "--jobs", "4", name=name).save_dir for name in ("one", "two"))

    assert tables(one) == tables(two)
    assert sorted(Journal(one).results) == list(range(15))


def test_failures_count_as_zero_and_three_alike_end_the_evolution(
    search: Search,
    runner: type[FakeRunner],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    runner.fails = {0: "loss is nan in epoch 3", 1: "killed by signal 9", 3: "loss is nan in epoch 5"}
    folder = search(6).save_dir
    assert len([r for r in caplog.records if "failed and counts as 0" in r.getMessage()]) == 3
    rows = (folder / "evolve.csv").read_text().splitlines()
    assert rows[1].split(",")[3].strip() == "0" and len(rows) == 7

    runner.fails = {index: f"no space left, {index} bytes" for index in range(7, 12)}
    with pytest.raises(YoloError, match="3 candidates in a row failed: no space left"):
        search(12, "--exist-ok")
    runner.fails = {}
    runner.trained.clear()
    search(12, "--exist-ok")
    assert runner.trained == [7, 8, 9, 10, 11], "failed candidates that ended it are trained again"


def test_a_budget_ends_an_evolution_and_a_larger_one_resumes_it(
    search: Search, runner: type[FakeRunner], caplog: pytest.LogCaptureFixture
) -> None:
    folder = search(3).save_dir
    (folder / "minutes.txt").write_text("61")
    with caplog.at_level("INFO"):
        search(9, "--exist-ok", "--evolve-budget", "1")
        assert runner.trained == [0, 1, 2] and "the budget of 1 h is used up" in caplog.text
        search(5, "--exist-ok", "--evolve-budget", "2")
    assert runner.trained == [0, 1, 2, 3, 4]
    assert "about 12 min for 6 more" in caplog.text, "known from earlier candidates, before the first"


def test_an_evolution_with_other_settings_cannot_resume_in_the_folder(search: Search, tmp_path: Path) -> None:
    first = search(1)
    assert search(1).save_dir != first.save_dir, "without --exist-ok or --resume there is a new one"
    with pytest.raises(ConfigError, match=r"other settings \(now: train .*--epochs=7"):
        search(2, "--exist-ok", "--epochs", "7")
    with pytest.raises(ConfigError, match="another hyp"):
        search(2, "--exist-ok", "--hyp", "hyp.shapes.yaml")
    with pytest.raises(ConfigError, match="the folder of an evolution"):
        search(2, "--resume", str(tmp_path / "nothing"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--evolve-members", "5"], "--evolve-members: only with --evolve-method population"),
        (["--evolve-method", "population", "--resume_evolve", "no.yaml"], "no.yaml: no such file"),
        (["--evolve-budget", "0"], "--evolve-budget 0.0: expected hours"),
        (["--jobs", "-1"], "--jobs -1"),
        (["--hyp", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_invalid_flags_are_errors_before_anything_is_written(
    search: Search, tmp_path: Path, flags: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        search(3, *flags)
    assert not list(tmp_path.iterdir())


def test_torchrun_is_an_error(search: Search, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ConfigError, match="--evolve: not under torchrun"):
        search(3)


def test_a_population_starts_from_yamls_or_from_an_earlier_population(
    search: Search, runner: type[FakeRunner], tmp_path: Path
) -> None:
    home = tmp_path / "members"
    home.mkdir()
    for number in range(2):
        (home / f"{number}.yaml").write_text(yaml.safe_dump({"hsv_h": 0.03 + number / 100}))
    how = ["--evolve-method", "population", "--evolve-members", "6"]
    folder = search(4, *how, "--evolve_population", str(home)).save_dir
    found = yaml.safe_load((folder / "evolve_population.yaml").read_text())

    assert list(found) == [f"gen{g}number{i}" for g in range(4) for i in range(6)]
    assert found["gen0number1"]["hsv_h"] == 0.04
    assert len(runner.trained) < 24, "the elite is not trained again"
    assert len((folder / "evolve.csv").read_text().splitlines()) == 25
    best = [max(-abs(found[f"gen{g}number{i}"]["hsv_h"] - 0.06) for i in range(6)) for g in range(4)]
    assert best == sorted(best), "the best one is kept"
    again = search(2, *how, "--resume_evolve", str(folder / "evolve_population.yaml"), name="again").save_dir
    assert Journal(again).results[0].hyp == found["gen3number0"]
