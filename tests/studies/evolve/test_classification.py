"""Evolution of a classification model, with trainings in subprocesses."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from studies.evolve.eta import minutes_of_training
from studies.evolve.genetic import Genetic, Population
from studies.evolve.trials import Result
from studies.training import train
from tests.studies.classifiers import class_folders, small_classifiers
from utils.base.options import parse_options
from utils.tasks.classify.options import ClassifyTrainOptions
from utils.tasks.classify.task import ClassifyTask

TASK = ClassifyTask()
START = TASK.read_hyp(ClassifyTrainOptions())


@pytest.fixture(scope="module")
def flags(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Flags of classify/train.py for a candidate that takes a second, plus the start of Python."""
    home = tmp_path_factory.mktemp("evolve classes")
    cfg, _ = small_classifiers(home)
    model = ["--data", str(class_folders(home)), "--cfg", str(cfg), "--weights", ""]
    return [*model, "--epochs", "1", "--img", "32", "--batch-size", "4", "--workers", "0", "--device", "cpu"]


def test_candidates_are_trained_with_their_hyperparameters(flags: list[str], tmp_path: Path) -> None:
    search = ["--evolve", "2", "--jobs", "2", "--project", str(tmp_path), "--name", "exp", "--noplots"]
    result = train(parse_options(ClassifyTrainOptions, [*flags, *search, "--lr0", "0.002"]))

    with (tmp_path / "exp" / "evolve.csv").open(newline="") as file:
        rows = [{name.strip(): float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert tuple(rows[0]) == (*TASK.measured, *TASK.genes())
    assert result.fitness == pytest.approx(max(row["metrics/accuracy_top1"] for row in rows), rel=1e-4)
    best = yaml.safe_load((tmp_path / "exp" / "hyp_evolve.yaml").read_text())
    assert best.keys() == TASK.genes().keys()
    for index, row in enumerate(rows):
        used = yaml.safe_load((tmp_path / "exp" / f"candidates/000{index}/run/hyp.yaml").read_text())
        assert {key: used[key] for key in best} == pytest.approx({key: row[key] for key in best}, rel=1e-4)
    assert rows[0]["lr0"] == 0.002 and any(rows[0][key] != rows[1][key] for key in best)

    again = parse_options(ClassifyTrainOptions, [*flags, "--hyp", str(tmp_path / "exp" / "hyp_evolve.yaml")])
    assert TASK.read_hyp(again) == START | best


def test_the_duration_is_estimated_from_one_step(flags: list[str]) -> None:
    minutes = minutes_of_training(parse_options(ClassifyTrainOptions, flags))
    assert minutes is not None and 0 < minutes < 2


@pytest.mark.parametrize("end", ["low", "high"])
def test_all_values_within_bounds_are_valid_for_training(end: str) -> None:
    hyp = {key: getattr(gene, end) for key, gene in TASK.genes().items()}
    assert hyp.items() <= TASK.check_hyp(hyp, "bounds", ClassifyTrainOptions()).items()


def test_candidates_are_ranked_by_top_1() -> None:
    start = {key: START[key] for key in TASK.genes()}
    searches = [Genetic(start, 0, TASK), Population(start, [], 4, 2, 0, TASK)]
    good = Result(0, start, {"val/loss": 9.0, "metrics/accuracy_top1": 0.75, "metrics/accuracy_top5": 1.0})
    for search in searches:
        assert search.fitness(good) == 0.75 and search.fitness(Result(1, start, failure="killed")) == 0
        assert search.propose(1, [good] * 4).keys() == start.keys()
    changed = {key for key, value in searches[1].propose(1, []).items() if value != start[key]}
    assert changed == {"scale", "fliplr", "flipud", "jitter"}
