"""Comparisons of classification models: top-1 decides, top-5 is shown beside it."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compare
from studies.compare.class_examples import ClassView, Guess
from studies.compare.compare_options import parse_command, read_comparison
from studies.compare.evaluation import metrics_of
from studies.compare.metrics import METRICS, metrics_of_epoch
from studies.compare.paired_images import compare_images, pair_of
from studies.compare.records import read_records
from studies.compare.report import markdown
from tests.studies.classifiers import class_folders, classifier, small_classifiers
from tests.studies.segmenters import segmenter
from utils.base.errors import ConfigError
from utils.data.class_folders import load_split, read_class_data
from utils.tasks.classify.options import ClassifyTrainOptions
from utils.tasks.classify.task import ClassifyTask
from utils.tasks.classify.validation import ClassifyResult, ClassMatches

SMALL = ["--imgsz", "32", "--device", "cpu", "--workers", "0", "--rounds", "0"]


def _matches(right: list[bool]) -> ClassMatches:
    """Of images of class 0 that are given class 0 if right, else class 1; always 0 among the five best."""
    top = np.array([[0, 1] if one else [1, 0] for one in right])
    return ClassMatches(np.zeros(len(right), int), top, [f"{index}.jpg" for index in range(len(right))])


def test_a_model_does_not_differ_from_itself() -> None:
    matches = _matches([True, False, True] * 5)
    for pair in compare_images(pair_of(matches, matches), 100):
        assert (pair.n, pair.mean, pair.low, pair.high, pair.p) == (15, 0, 0, 0, 1)


def test_the_p_value_is_that_of_an_exact_sign_test() -> None:
    """Eight images are right in the second model only: 2 of 2^8 exchanges are as extreme (McNemar)."""
    base, better = _matches([False] * 8 + [True] * 12), _matches([True] * 20)
    top1, top5 = compare_images(pair_of(base, better), 4000)
    assert top1.mean == pytest.approx(0.4) and top1.p == pytest.approx(2 / 2**8, abs=0.004)
    assert top1.low == pytest.approx(0.4 - 1.96 * np.sqrt(0.4 * 0.6 / 20), abs=0.05)
    assert (top5.mean, top5.p) == (0, 1)
    with pytest.raises(ValueError, match="same images"):
        pair_of(base, _matches([True] * 19))


def test_the_numbers_of_a_run_have_the_names_of_their_metrics() -> None:
    matches = ClassMatches(np.array([0, 0, 2]), np.array([[0, 1, 2], [1, 0, 2], [2, 1, 0]]), ["a", "b", "c"])
    result = ClassifyResult({0: "cat", 1: "dog", 2: "elk"}, matches, 2 / 3, 1.0)
    assert metrics_of(result) == {"top-1": 2 / 3, "top-5": 1.0, "accuracy": {"cat": 0.5, "elk": 1.0}}
    row = {"epoch": 3.0, "train/loss": 2.0, "val/loss": 9.0}
    row |= {f"metrics/{name}": 0.1 * (index + 5) for index, name in enumerate(ClassifyTask.metrics)}
    assert metrics_of_epoch(row) == {"epoch": 3, "top-1": 0.5, "top-5": pytest.approx(0.6), "loss": 2}
    assert [*METRICS["classify"].epochs.values()] == [f"metrics/{name}" for name in ClassifyTask.metrics]


def test_models_are_trained_measured_and_reported(tmp_path: Path) -> None:
    """Two models, two at a time, then their weights without another training."""
    data, output = class_folders(tmp_path), ["--project", str(tmp_path / "runs")]
    fixed = ["--data", str(data), "--epochs", "1", "--batch-size", "4", "--noplots", *SMALL]
    models = ["--cfg", *map(str, small_classifiers(tmp_path)), "--labels", "plain", "gated"]
    compare.main(
        [*models, "--weights", "", "--seeds", "0", "--jobs", "2", "--dropout", "0.1", *fixed, *output]
    )

    rows = _rows(tmp_path / "runs" / "exp" / "results.csv")
    assert [(row["model"], row["checkpoint"]) for row in rows] == [
        *(("plain", "best"), ("plain", "last")),
        *(("gated", "best"), ("gated", "last")),
    ]
    assert all(0 <= float(row["top-1"]) <= float(row["top-5"]) <= 1 for row in rows)
    files = sorted((tmp_path / "runs" / "runs").glob("*/run.json"))
    for run in (json.loads(file.read_text()) for file in files):
        assert run["task"] == "classify" and run["facts"]["options"]["dropout"] == 0.1
        assert run["facts"]["hyp"]["lr0"] == 0.001
    weights = [str(file.parent / "weights" / "best.pt") for file in files]

    flags = ["--data", str(data), "--resamples", "100", "--examples", "2", *SMALL]
    compare.main(["--weights", *weights, *flags, *output, "--name", "files"])
    first, second = _rows(tmp_path / "runs" / "files" / "results.csv")
    assert float(second["top-1 pictures"]) == sum(1 for _ in data.glob("val/*/*.jpg"))
    assert "top-1 p" not in {key for key, value in first.items() if value}
    text = (tmp_path / "runs" / "files" / "report.md").read_text()
    assert "| top-1 | difference | p (adjusted) | top-5 |" in text and "Accuracy by class, val" in text
    assert "mAP" not in text and "mAP" not in (tmp_path / "runs" / "exp" / "report.md").read_text()
    assert markdown(read_records(tmp_path / "runs" / "files"), 100) in text


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_the_task_of_the_yamls_decides_which_flags_are_accepted(tmp_path: Path) -> None:
    data, (cfg, _) = class_folders(tmp_path), small_classifiers(tmp_path)
    fixed = ["--data", str(data), "--weights", "", "--seeds", "0", "--device", "cpu"]

    def read(*words: str) -> Any:
        return read_comparison(*parse_command([*words, *fixed]))

    (variant,) = read("--cfg", str(cfg), "--dropout", "0.2").variants
    assert isinstance(variant.options, ClassifyTrainOptions) and variant.options.dropout == 0.2
    with pytest.raises(ConfigError, match="plain-cls.yaml is a classification model, .* a detection model"):
        read("--cfg", str(cfg), "yolov5n.yaml")
    with pytest.raises(SystemExit):
        read("--cfg", str(cfg), "--single-cls")
    both = ["--weights", str(classifier(tmp_path)), str(segmenter(tmp_path))]
    with pytest.raises(ConfigError, match="is a classification model, .* a segmentation model"):
        compare.main([*both, "--data", str(data), "--project", str(tmp_path / "runs"), *SMALL])


def test_examples_are_images_of_which_models_name_different_classes(tmp_path: Path) -> None:
    data = read_class_data(str(class_folders(tmp_path)))
    view = ClassView(load_split(data, "val", data.names), data.names, 32, "truth")
    true = view.truth(0)
    other = Guess(1 - true.number, 0.75)
    assert view.difference(Guess(true.number, 0.5), Guess(true.number, 0.9)) == 0
    assert view.difference(true, other) == 1.75

    found = {"truth": true, "one": Guess(true.number, 0.5), "two": other}
    name, wrong = data.names[true.number], data.names[other.number]
    assert view.describe(found, ("one", "two")) == f"{name} for one, {wrong} for two"
    panels = view.panels(np.zeros((20, 30, 3), np.uint8), found, ("one", "two"))
    assert [caption for caption, _ in panels] == [f"truth: {name}", f"one: {name} 0.50", f"two: {wrong} 0.75"]
    frames = [tuple(image[0, 0]) for _, image in panels]
    assert frames[0] == frames[1] != frames[2]
