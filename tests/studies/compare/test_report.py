"""Tables and conclusions, from records with known differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from studies.compare.records import Records, read_records
from studies.compare.report import markdown, write_report
from studies.compare.summary import epochs_to_reach, summarize
from tests.studies.compare.synthetic import GAIN, SEEDS, synthetic_records
from utils.base.errors import ConfigError, DataError


def test_records_can_be_read_from_their_csv_files(tmp_path: Path) -> None:
    records = synthetic_records()
    records.write(tmp_path)
    again = read_records(tmp_path)
    assert (again.models, again.seeds) == (["base", "better", "same"], list(SEEDS))
    assert again.classes == ["cat", "dog, old"]
    assert again.metric("same", "mAP50-95") == pytest.approx(records.metric("same", "mAP50-95"))
    assert again.curve("better", 3) == pytest.approx(records.curve("better", 3), rel=1e-5)


def test_counts_are_not_rounded_when_records_are_written_again(tmp_path: Path) -> None:
    records = synthetic_records()
    for row in records.results:
        row["parameters"] = 1770682
    for _ in range(2):
        records.write(tmp_path)
        records = read_records(tmp_path)
    assert {row["parameters"] for row in records.results} == {1770682}


def test_a_report_from_csv_files_is_identical(tmp_path: Path) -> None:
    write_report(synthetic_records(), tmp_path)
    assert markdown(read_records(tmp_path)) == (tmp_path / "report.md").read_text()


def test_known_differences_are_reported() -> None:
    base, better, same = summarize(synthetic_records())
    assert base.main.pair is None and base.conclusion == ""
    pair = better.main.pair
    assert pair is not None and pair.mean == pytest.approx(GAIN + 0.002)
    assert pair.low <= GAIN + 0.002 <= pair.high
    assert better.conclusion.startswith("better is better than base by 5.2 points")
    assert "no significant difference at 5 seeds" in same.conclusion
    assert better.main.p_adjusted >= pair.p


def _simulated(draw: np.random.Generator, models: int, gains: Sequence[float] = ()) -> Records:
    """A comparison of models of which each differs from the first by its gain, and by noise."""
    shared = draw.normal(0.55, 0.02, 5)
    rows = []
    for model in range(models):
        gain = gains[model] if gains else 0.0
        for seed, value in enumerate(shared + gain + draw.normal(0, 0.005, 5)):
            row = {
                "model": f"m{model}",
                "seed": seed,
                "split": "val",
                "checkpoint": "best",
                "run": f"{model}",
            }
            rows.append(row | {"mAP50": value + 0.3, "mAP50-95": value})
    return Records(rows)


@pytest.mark.parametrize("models", [2, 4])
def test_the_error_level_is_five_percent_for_all_comparisons(models: int) -> None:
    draw = np.random.default_rng(models)
    wrong = 0
    for _ in range(500):
        found = summarize(_simulated(draw, models), resamples=100)
        wrong += any("no significant difference" not in one.conclusion for one in found[1:])
    assert 0.025 <= wrong / 500 <= 0.08


def test_one_better_model_is_found_among_others() -> None:
    draw = np.random.default_rng(0)
    found = [summarize(_simulated(draw, 3, (0, 0.02, 0)), resamples=100) for _ in range(100)]
    assert sum("m1 is better than m0 by" in one[1].conclusion for one in found) >= 80
    assert sum("no significant difference" in one[2].conclusion for one in found) >= 90


def test_conclusions_use_the_adjusted_p() -> None:
    draw = np.random.default_rng(5)
    for _ in range(2000):
        one = summarize(_simulated(draw, 6), resamples=100)[1]
        if one.main.pair is not None and one.main.pair.p < 0.04:
            break
    assert one.main.pair is not None and one.main.pair.p < 0.04 and one.main.p_adjusted > 0.05
    assert "no significant difference" in one.conclusion


def test_a_model_without_detections_has_a_map_of_zero() -> None:
    records = synthetic_records()
    for row in records.results:
        if row["model"] == "same":
            row |= dict.fromkeys(("P", "R", "mAP50", "mAP50-95", "AP/cat", "AP/dog, old"), 0.0)
    assert "| same | 0.000 (-42.0" in markdown(records)


def test_classes_that_a_model_lacks_are_left_empty() -> None:
    records = synthetic_records()
    for row in records.results:
        if row["model"] == "same":
            del row["AP/cat"]
    assert "| same |  | 0." in markdown(records)


def test_a_single_file_is_reported_without_a_comparison(tmp_path: Path) -> None:
    row = {"model": "a", "seed": 0, "split": "val", "checkpoint": "best", "flags": "a.pt"}
    records = Records([row | {"P": 0.5, "R": 0.5, "mAP50": 0.5, "mAP50-95": 0.3, "AP/cat": 0.3}])
    write_report(records, tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "a alone." in text and "| a | 0.500 | 0.300 |" in text and "seeds" not in text


def test_epochs_until_the_best_map_of_the_baseline() -> None:
    records = synthetic_records()
    assert epochs_to_reach(records, "better") == (10.0, 5, 5)  # 0.9 of a curve 10 % higher is not enough
    assert epochs_to_reach(records, "same") == (10.0, 3, 5)  # the seeds whose noise is positive


def test_the_report_names_models_and_seeds() -> None:
    text = markdown(synthetic_records())
    assert "3 models, seeds 0, 1, 2, 3, 4; 30 minutes of training; code abc." in text
    assert "| better | 2.000 M | 5.00 | 11.0 (9.0 to 12.0), x 1.10 | 2.0 | 0.872 ± 0.017 |" in text
    assert "## test, best.pt of each run" in text and "| model | cat | dog, old |" in text


def test_one_seed_gives_no_conclusion() -> None:
    records = synthetic_records()
    few = Records([row for row in records.results if row["seed"] == 0], [])
    assert "one run cannot show a difference" in markdown(few)


def test_a_folder_without_a_comparison_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"results\.csv"):
        read_records(tmp_path)


def _with_details() -> Records:
    """The synthetic comparison, with sizes, errors and images; `better` gains on small objects only."""
    records = synthetic_records()
    for row in records.results:
        gain = GAIN if row["model"] == "better" else 0.0
        noise = 0.001 * row["seed"]
        row |= {"AP small": 0.2 + gain + noise, "AP large": 0.7 + noise, "dAP50 class": 0.03 - gain / 2}
    for model, value in (("base", 0.5), ("better", 0.75), ("same", 0.5)):
        records.images.append(
            {"model": model, "split": "val", "image": "a b.jpg", "metric": value, "runs": 5}
        )
        records.images.append({"model": model, "split": "val", "image": "c.jpg", "metric": 0.9, "runs": 5})
    return records


def test_planted_effects_of_size_errors_and_images_are_reported(tmp_path: Path) -> None:
    write_report(_with_details(), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert "| better | 0.252 (+5.0 [+5.0, +5.0]) | 0.702 (+0.0 [+0.0, +0.0]) |" in text
    assert "| better | 0.5 (-2.5 [-2.5, -2.5]) |" in text
    assert "| a b.jpg | 0.500 | 0.750 | 0.500 |" in text and "| c.jpg |" not in text
    assert markdown(read_records(tmp_path)) == text
    page = (tmp_path / "report.html").read_text()
    assert "AP by object size" in page and "a b.jpg" in page


def test_conclusions_are_about_the_chosen_metric() -> None:
    records = _with_details()
    records.chosen = "AP small"
    _, better, same = summarize(records)
    assert "better is better than base by 5.0 points of AP small" in better.conclusion
    assert [metric.name for metric in better.metrics] == ["mAP50", "mAP50-95", "AP small"]
    assert "no significant difference" in same.conclusion
    with pytest.raises(ConfigError, match="--metric AP tiny: not measured; choose one of 'P', .*'AP/cat'"):
        records.metric_set.check_metric("AP tiny", records.classes)
    for name in ("", "mAP50", "AP small", "dAP50 class", "AP/dog, old"):
        records.metric_set.check_metric(name, records.classes)


def test_folds_are_paired_by_seed_and_fold() -> None:
    """Two seeds with two folds each; the order of the rows does not matter."""
    records = Records()
    values = {(0, 1): 0.50, (0, 2): 0.60, (1, 1): 0.55, (1, 2): 0.52}
    for model, gain in (("a", 0.0), ("b", 0.1)):
        for (seed, fold), value in reversed(values.items()) if gain else values.items():
            row = {
                "model": model,
                "seed": seed,
                "fold": fold,
                "split": "val",
                "checkpoint": "best",
                "run": model,
            }
            records.results.append(
                row | {"P": 0, "R": 0, "mAP50": 0.9, "mAP50-95": value + gain + fold / 1e4}
            )
    _, b = summarize(records)
    assert records.folds == 2 and b.main.pair is not None
    assert (b.main.pair.n, b.main.pair.mean) == (4, pytest.approx(0.1))
    assert "4 folds" in b.conclusion
    assert "seeds 0, 1 with 2 folds each" in markdown(records)
