"""Evaluation of classifiers: the accuracies of the original, by class, and what is written and logged."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.known import golden
from tests.utils.tasks.classify.test_loss import rounding_gap, rows, stored
from utils.base.errors import ConfigError
from utils.data.loader import Batch
from utils.tasks.classify.loss import ClassificationLoss
from utils.tasks.classify.validation import ClassifyEvaluator, ClassifyResult, ClassMatches
from utils.val.evaluate import EvalConfig, evaluate
from utils.val.outputs import OutputOptions

CASES: dict[str, dict[str, Any]] = golden("15_classify_metrics")["cases"]
CPU = torch.device("cpu")


class Given(nn.Module):
    """A model that returns stored logits, batch after batch."""

    def __init__(self, batches: list[Tensor]) -> None:
        super().__init__()
        self.batches = [*batches]

    def forward(self, images: Tensor) -> Tensor:
        return self.batches.pop(0)


def batches_of(classes: np.ndarray, sizes: list[int]) -> list[Batch]:
    made, first = [], 0
    for size in sizes:
        part = classes[first : first + size]
        names = [f"{index}.jpg" for index in range(first, first + size)]
        made.append(Batch(torch.zeros(size, 3, 8, 8, dtype=torch.uint8), rows(part), names, [None] * size))
        first += size
    return made


def evaluated(
    logits: Tensor, classes: np.ndarray, sizes: list[int], names: dict[int, str] | None = None, **options: Any
) -> ClassifyResult:
    names = names or {index: f"c{index}" for index in range(logits.shape[1])}
    result = evaluate(
        Given([*logits.split(sizes)]), batches_of(classes, sizes), names, device=CPU,
        evaluator=ClassifyEvaluator, **options,
    )  # fmt: skip
    assert isinstance(result, ClassifyResult)
    return result


@pytest.mark.parametrize("name", CASES)
def test_accuracies_and_losses_equal_the_original(name: str) -> None:
    known = CASES[name]
    (logits, classes), sizes = stored(name), known["batch_sizes"]
    result = evaluated(logits, classes, sizes, loss=ClassificationLoss(0.1))
    assert (result.top1, result.top5) == pytest.approx((known["top1"], known["top5"]), rel=1e-6, abs=1e-6)
    assert result.metrics == (result.top1, result.top5) == tuple(result)[:2]
    assert result.fitness() == result.top1 and result.seen == len(classes)
    # Ours is the mean over the images, the original's the mean of the means of the batches.
    loss = ClassificationLoss(0.1)(logits, rows(classes))[0].item()
    assert result.loss == pytest.approx(loss, rel=1e-5) and result.results == (result.loss, *result.metrics)
    parts = zip(logits.split(sizes), np.split(classes, np.cumsum(sizes)[:-1]), strict=True)
    means = [loss_of(*part) for part in parts]
    assert np.mean(means) == pytest.approx(known["loss_smoothing_0.1"], rel=1e-5, abs=rounding_gap(name))
    assert np.average(means, weights=sizes) == pytest.approx(result.loss, rel=1e-5)


def loss_of(logits: Tensor, classes: np.ndarray) -> float:
    return ClassificationLoss(0.1)(logits, rows(classes))[0].item()


@pytest.mark.parametrize("name", CASES)
def test_the_size_of_batches_changes_nothing(name: str) -> None:
    (logits, classes), known = stored(name), CASES[name]
    one = evaluated(logits, classes, [len(classes)], loss=ClassificationLoss())
    other = evaluated(logits, classes, known["batch_sizes"], loss=ClassificationLoss())
    assert one.metrics == other.metrics and one.loss == pytest.approx(other.loss, rel=1e-6)
    assert np.array_equal(one.matches.top, other.matches.top) and one.matches.paths == other.matches.paths


def result_of(true: list[int], top: list[list[int]], names: str = "abc") -> ClassifyResult:
    matches = ClassMatches(np.array(true), np.array(top), [f"{index}.jpg" for index in range(len(true))])
    top1, top5 = (float(value) for value in matches.hits.mean(0))
    return ClassifyResult(dict(enumerate(names)), matches, top1, top5, 0.5)


def test_metrics_by_class_are_nan_for_classes_without_images() -> None:
    result = result_of([0, 0, 0, 2], [[0, 1], [1, 0], [2, 1], [2, 0]])
    assert (result.top1, result.top5) == (0.5, 0.75)
    np.testing.assert_allclose(result.by_class, [[1 / 3, 2 / 3], [np.nan, np.nan], [1, 1]])
    assert result.label_counts.tolist() == [3, 0, 1]
    assert result.class_quality == pytest.approx([1 / 3, 0.5, 1])


def test_the_confusion_matrix_counts_predicted_by_true_class() -> None:
    result = result_of([0, 0, 0, 2], [[0, 1], [1, 0], [1, 2], [0, 2]])
    assert result.matches.confusion(3).tolist() == [[1, 0, 1], [2, 0, 0], [0, 0, 0]]
    assert result.matches.confusion(5).shape == (5, 5)


def test_the_result_unpacks_as_the_original_returns_it() -> None:
    top1, top5, loss = result_of([0, 1], [[0], [0]])
    assert (top1, top5, loss) == (0.5, 0.5, 0.5)


def test_rows_are_logged_for_each_class_if_wanted(caplog: pytest.LogCaptureFixture) -> None:
    result = result_of([0, 0, 2], [[0, 1], [1, 0], [2, 0]])
    with caplog.at_level("INFO"):
        result.log(per_class=False)
        assert caplog.messages == ["                     all           3       0.667           1         0.5"]
        caplog.clear()
        result.log(per_class=True)
    lines = [message.split() for message in caplog.messages]
    assert lines[1:] == [["a", "2", "0.5", "1"], ["b", "0", "nan", "nan"], ["c", "1", "1", "1"]]


def test_top5_of_up_to_five_classes_is_explained_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        result_of([0], [[0, 1, 2]]).warn(standalone=True)
        result_of([0], [[0, 1, 2]]).warn(standalone=False)
        result_of([0], [[0, 1, 2, 3, 4]], "abcdef").warn(standalone=True)
    assert caplog.messages == ["top5_acc is 1 by definition: there are only 3 classes"]


@pytest.mark.parametrize("verbose", [False, True])
def test_verbose_decides_on_rows_by_class_in_training(
    verbose: bool, caplog: pytest.LogCaptureFixture
) -> None:
    logits, classes = stored("three")
    with caplog.at_level("INFO"):
        evaluated(logits, classes, [21], config=EvalConfig(verbose=verbose), loss=ClassificationLoss())
    found = [message.split()[0] for message in caplog.messages if message.strip()]
    assert [name for name in found if name in ("c0", "c1", "c2")] == (["c0", "c1", "c2"] if verbose else [])


def test_a_model_of_other_classes_is_an_error() -> None:
    logits, classes = stored("three")
    with pytest.raises(ConfigError, match="the model has 3 classes, the dataset 4"):
        evaluated(logits, classes, [21], names=dict(enumerate("abcd")))


def test_files_are_written(tmp_path: Path) -> None:
    logits, classes = stored("six")
    names = dict(enumerate(["plain", "with space", "комма,", "名", "e", "f"]))
    result = evaluated(logits, classes, [16, 16, 3], names=names, outputs=OutputOptions(tmp_path, plots=True))
    assert {path.name for path in tmp_path.iterdir()} == {
        "predictions.csv", "confusion_matrix.png",
        *(f"val_batch{batch}_{kind}.jpg" for batch in range(3) for kind in ("labels", "pred")),
    }  # fmt: skip
    with (tmp_path / "predictions.csv").open(newline="", encoding="utf-8") as file:
        head, *table = csv.reader(file)
    assert head == ["image", "class", "top1", "top2", "top3", "top4", "top5"]
    assert [row[0] for row in table] == [f"{index}.jpg" for index in range(35)]
    assert [row[1] for row in table] == [names[number] for number in classes]
    best = logits.argsort(1, descending=True)[:, :5]
    assert [row[2:] for row in table] == [[names[number] for number in row] for row in best.tolist()]
    assert np.mean([row[1] == row[2] for row in table]) == pytest.approx(result.top1)


def test_without_plots_only_the_table_is_written(tmp_path: Path) -> None:
    logits, classes = stored("two")
    evaluated(logits, classes, [7], outputs=OutputOptions(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.csv"]
    assert (tmp_path / "predictions.csv").read_text().startswith("image,class,top1,top2\n")


def test_batches_of_several_processes_are_merged_in_their_order() -> None:
    logits, classes = stored("six")
    sizes = [16, 16, 3]
    whole = evaluated(logits, classes, sizes, loss=ClassificationLoss())
    parts, batches = [*logits.split(sizes)], batches_of(classes, sizes)
    seen: list[Any] = []

    def gather(own: Any) -> list[Any]:
        seen.append(own)
        return seen

    names = {index: f"c{index}" for index in range(6)}
    results = [
        evaluate(
            Given(parts[rank::2]), batches[rank::2], names, device=CPU, evaluator=ClassifyEvaluator,
            loss=ClassificationLoss(), gather=gather,
        )
        for rank in range(2)
    ]  # fmt: skip
    merged = results[1]  # by then `gather` has both
    assert merged.metrics == whole.metrics and merged.matches.paths == whole.matches.paths
    assert merged.loss == pytest.approx(whole.loss, rel=1e-6)
    assert np.array_equal(merged.matches.true, whole.matches.true)
    assert np.array_equal(merged.matches.top, whole.matches.top)
