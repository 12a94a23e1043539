"""The statistics of a comparison, against scipy and against simulations."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from studies.compare.statistics import (
    Paired,
    bootstrap_interval,
    compare_pairs,
    conclude,
    detectable_difference,
    equivalence_p,
    holm,
    paired_p,
    seeds_needed,
)

DRAW = np.random.default_rng(3)


@pytest.mark.parametrize("n", [2, 3, 5, 20])
def test_p_is_that_of_scipys_paired_t_test(n: int) -> None:
    a, b = DRAW.normal(size=(2, n))
    assert compare_pairs(a, b).p == pytest.approx(stats.ttest_rel(b, a).pvalue)


def test_with_many_pairs_the_interval_is_that_of_scipys_bootstrap() -> None:
    values = DRAW.normal(0.3, 1, 400)
    low, high = bootstrap_interval(values, 20000)
    theirs = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=20000, rng=1)
    assert low == pytest.approx(theirs.confidence_interval.low, abs=0.006)
    assert high == pytest.approx(theirs.confidence_interval.high, abs=0.006)


@pytest.mark.parametrize(("pairs", "least"), [(5, 0.905), (10, 0.93)])
def test_the_interval_has_nearly_its_nominal_coverage(pairs: int, least: float) -> None:
    """Without the widening, or with the t-distribution alone, coverage is lower."""
    hits = 0
    for values in np.random.default_rng(pairs).normal(0.5, 1, (2000, pairs)):
        low, high = bootstrap_interval(values, 400)
        hits += low <= 0.5 <= high
    assert least <= hits / 2000 <= 0.97


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_error_level_is_five_percent(seeds: int) -> None:
    """Runs of a seed share an offset; models differ only by noise."""
    found = 0
    for _ in range(500):
        shared = DRAW.normal(0.55, 0.02, seeds)
        a, b = shared + DRAW.normal(0, 0.005, (2, seeds))
        found += paired_p(b - a) < 0.05
    assert 0.025 <= found / 500 <= 0.08


def test_detectable_differences_are_found_with_the_stated_power() -> None:
    effect = detectable_difference(0.01, 5)
    found = sum(paired_p(DRAW.normal(effect, 0.01, 5)) < 0.05 for _ in range(1000))
    assert 0.75 <= found / 1000 <= 0.85


def test_holm_is_the_closure_of_bonferronis_test() -> None:
    """A hypothesis is rejected if every set of hypotheses that contains it is rejected."""
    for ps in DRAW.uniform(0, 0.3, (20, 4)).tolist():
        sets = [s for size in range(1, 5) for s in itertools.combinations(range(4), size)]
        closed = [max(min(1.0, len(s) * min(ps[i] for i in s)) for s in sets if h in s) for h in range(4)]
        assert holm(ps) == pytest.approx(closed)
    assert holm([0.01, math.nan])[0] == pytest.approx(0.01)


def test_equal_results_have_a_p_of_one() -> None:
    pair = compare_pairs([0.5, 0.6, 0.7], [0.5, 0.6, 0.7])
    assert (pair.mean, pair.p, pair.low, pair.high) == (0, 1, 0, 0)


def test_conclusions_follow_the_adjusted_p() -> None:
    same = conclude("B", "A", Paired(5, 0.001, -0.01, 0.012, 0.8, 0.015), 0.8)
    assert "no significant difference at 5 seeds" in same and "below 1.5 points" in same
    assert "p = 0.800)" in same and "narrow" not in same
    few = conclude("B", "A", Paired(3, 0.02, 0.01, 0.03, 0.02, 0.01), 0.06)
    assert "no significant difference" in few and "too narrow at 3; p = 0.020, adjusted 0.060" in few
    assert "not be found" not in conclude("B", "A", Paired(3, 0.0, 0.0, 0.0, 1.0, 0.0), 1.0)
    better = conclude("B", "A", Paired(5, 0.02, 0.01, 0.03, 0.01, 0.01), 0.01)
    assert better.startswith("B is better than A by 2.0 points")
    assert "worse" in conclude("B", "A", Paired(5, -0.02, -0.03, -0.01, 0.01, 0.01), 0.01)
    assert "one run cannot show a difference" in conclude("B", "A", compare_pairs([0.5], [0.9]), math.nan)


def test_unpaired_results_are_an_error() -> None:
    with pytest.raises(ValueError, match="pairs"):
        compare_pairs([1.0], [1.0, 2.0])


def test_equal_models_are_shown_to_be_equal() -> None:
    base = np.array([0.50, 0.51, 0.52, 0.53, 0.54])
    pair = compare_pairs(base.tolist(), (base + [1e-3, -1e-3, 2e-3, 0, -2e-3]).tolist())
    assert pair.p_equal < 0.01
    sentence = conclude("B", "A", pair, 1.0)
    assert "no significant difference" in sentence and "They are equal within 1 point" in sentence
    noisy = compare_pairs(base.tolist(), [0.52, 0.49, 0.54, 0.50, 0.55])
    assert noisy.p_equal > 0.1 and "equal" not in conclude("B", "A", noisy, 1.0)
    assert equivalence_p(np.full(5, 0.02)) == 1 and equivalence_p(np.zeros(5)) == 0


@pytest.mark.parametrize("effect", [-0.01, 0.01])
@pytest.mark.parametrize("n", [3, 5, 10])
def test_models_that_differ_by_the_margin_are_rarely_called_equal(effect: float, n: int) -> None:
    found = [equivalence_p(DRAW.normal(effect, 0.004, n)) < 0.05 for _ in range(1000)]
    assert np.mean(found) <= 0.07


def test_equivalence_has_two_one_sided_tests() -> None:
    values = DRAW.normal(0.002, 0.005, 8)
    above = stats.ttest_1samp(values, -0.01, alternative="greater").pvalue
    below = stats.ttest_1samp(values, 0.01, alternative="less").pvalue
    assert equivalence_p(values) == pytest.approx(max(above, below))


def test_the_number_of_seeds_has_the_stated_power() -> None:
    """A pilot whose spread is known: that many seeds find 1 point in 8 of 10 studies, fewer do not."""
    pilot = compare_pairs([0.5, 0.5, 0.5], [0.49, 0.5, 0.51])
    few, many = seeds_needed(pilot)
    assert pilot.spread == pytest.approx(0.01) and detectable_difference(0.01, few) <= 0.01
    assert detectable_difference(0.01, few - 1) > 0.01
    found = sum(paired_p(DRAW.normal(0.01, 0.01, few)) < 0.05 for _ in range(1000))
    assert 0.77 <= found / 1000 <= 0.87
    assert detectable_difference(0.01 * math.sqrt(2 / stats.chi2.ppf(0.2, 2)), many) <= 0.01 < many


def test_a_pilot_of_three_states_both_numbers() -> None:
    pair = compare_pairs([0.5, 0.5, 0.5], [0.49, 0.5, 0.512])
    few, many = seeds_needed(pair)
    assert f"To find 1 point takes about {few} seeds, up to {many}" in conclude("b", "a", pair, pair.p)


def test_folds_that_share_training_images_are_corrected() -> None:
    """By hand, after Nadeau and Bengio: the variance is (1 / n + test / train) of that of the differences."""
    a, b = [0.50, 0.52, 0.51, 0.53, 0.49], [0.52, 0.53, 0.55, 0.54, 0.53]
    difference = np.subtract(b, a)
    t = difference.mean() / (difference.std(ddof=1) * math.sqrt(1 / 5 + 1 / 4))
    pair = compare_pairs(a, b, overlap=1 / 4)
    assert pair.p == pytest.approx(2 * stats.t.sf(t, 4))
    assert pair.p > compare_pairs(a, b).p
    assert (pair.low + pair.high) / 2 == pytest.approx(pair.mean) and pair.low < compare_pairs(a, b).low


def test_the_error_level_of_a_cross_validation_is_about_five_percent() -> None:
    """Two rules of equal error: linear regression on either of two equally informative features, 5 folds."""
    draw = np.random.default_rng(11)
    hits = {0.0: 0, 1 / 4: 0}
    for _ in range(400):
        x = draw.normal(size=(60, 2))
        y = x.sum(1) + draw.normal(size=60)
        errors = np.zeros((5, 2))
        for fold in range(5):
            test = np.arange(60) % 5 == fold
            for model in range(2):
                one = x[:, model]
                slope = (one[~test] * y[~test]).sum() / (one[~test] ** 2).sum()
                errors[fold, model] = ((y[test] - slope * one[test]) ** 2).mean()
        for overlap in hits:
            hits[overlap] += compare_pairs(*errors.T, resamples=100, overlap=overlap).p < 0.05
    assert hits[1 / 4] / 400 <= 0.07 and hits[1 / 4] < hits[0.0]
