"""Paired comparisons: the difference, its interval and p-value, and the smallest detectable difference.

Conclusions rest on Student's paired t-test, which keeps its error level of 5 % with any number of seeds.
The percentile bootstrap is far too narrow for 3 to 10 pairs, so its interval is widened as proposed by
Hesterberg (What Teachers Should Know About the Bootstrap, arXiv:1411.5279, section 3.2.4), and agrees with
the test.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.base.seeds import generator

LEVEL = 0.05  # significance level
POWER = 0.8
MARGIN = 0.01  # differences below one point are taken for equal
MIN_PAIRS = 5  # pairs that the bootstrap interval needs to have nearly its nominal coverage
_STREAM = 77  # random number stream of the bootstrap


@dataclass(frozen=True)
class Paired:
    """Mean difference over n pairs, B minus A."""

    n: int
    mean: float
    low: float  # 95 % bootstrap confidence interval
    high: float
    p: float  # two-sided; NaN where it cannot be computed
    detectable: float  # smallest difference found with probability POWER, adjusted; NaN if unknown
    p_equal: float = math.nan  # of the equivalence test, adjusted; small: equal within MARGIN
    spread: float = math.nan  # standard deviation of the differences; NaN for images


def compare_pairs(
    a: Sequence[float],
    b: Sequence[float],
    resamples: int = 2000,
    seed: int = 0,
    comparisons: int = 1,
    overlap: float = 0.0,
) -> Paired:
    """Compare the results of two models, paired by position (the same seed).

    Args:
        a: (n,) results of the baseline.
        b: (n,) results of the other model.
        resamples: number of bootstrap resamples.
        seed: of the bootstrap.
        comparisons: number of comparisons that share the significance level.
        overlap: of a cross-validation, validation images per training image of a fold. Its training sets
            share images, so its results vary less than they would on new data; the variance is corrected as
            by Nadeau and Bengio (Inference for the generalization error, Machine Learning 52, 2003), and
            the interval is that of the t-test.

    Raises:
        ValueError: the lengths differ, or are zero.
    """
    from scipy import stats

    difference = np.asarray(b, float) - np.asarray(a, float)
    n = len(difference)
    if len(a) != len(b) or n == 0:
        raise ValueError(f"expected pairs, got {len(a)} and {len(b)} values")
    mean = float(difference.mean())
    spread = float(difference.std(ddof=1)) if n > 1 else math.nan
    if n < 2:
        return Paired(n, mean, math.nan, math.nan, math.nan, math.nan)
    spread *= math.sqrt(1 + n * overlap)
    if overlap:
        half = float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * spread / math.sqrt(n)
        low, high = mean - half, mean + half
    else:
        low, high = bootstrap_interval(difference, resamples, seed)
    detectable = detectable_difference(spread, n, LEVEL / comparisons)
    p_equal = min(equivalence_p(difference, overlap=overlap) * comparisons, 1.0)
    return Paired(n, mean, low, high, paired_p(difference, overlap), detectable, p_equal, spread)


def paired_p(difference: np.ndarray, overlap: float = 0.0) -> float:
    """Return the two-sided p-value of Student's t-test for a zero mean of `difference` (n,).

    `overlap`: see `compare_pairs`.
    """
    from scipy import stats

    if np.ptp(difference) == 0:  # no variance, so no t statistic
        return 0.0 if difference.any() else 1.0
    t = float(difference.mean()) / _standard_error(difference, overlap)
    return float(2 * stats.t.sf(abs(t), len(difference) - 1))


def _standard_error(difference: np.ndarray, overlap: float) -> float:
    return float(difference.std(ddof=1)) * math.sqrt(1 / len(difference) + overlap)


def equivalence_p(difference: np.ndarray, margin: float = MARGIN, overlap: float = 0.0) -> float:
    """Return the p-value of two one-sided t-tests (TOST, Schuirmann 1987) of `difference` (n,), n at least 2.

    A small value shows that the mean is between -margin and margin: "no difference" as a finding, where a
    large p-value of the usual test only fails to find one. `overlap`: see `compare_pairs`.
    """
    from scipy import stats

    mean, error = float(difference.mean()), _standard_error(difference, overlap)
    if error == 0:
        return 0.0 if abs(mean) < margin else 1.0
    above, below = (mean + margin) / error, (mean - margin) / error
    freedom = len(difference) - 1
    return float(max(stats.t.sf(above, freedom), stats.t.cdf(below, freedom)))


def bootstrap_interval(
    values: np.ndarray, resamples: int, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Return the widened percentile bootstrap interval of the mean of `values` (n,), n at least 2.

    The percentiles are those whose normal interval would be as wide as the t-interval of n values. With
    fewer than 5 values the interval is limited by their range, and therefore too narrow.
    """
    from scipy import stats

    n = len(values)
    rows = generator(seed, _STREAM, n).integers(n, size=(resamples, n))
    means = values[rows].mean(1)
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(1 - level / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def detectable_difference(spread: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """Return the mean difference that a paired t-test finds with probability `power`.

    Args:
        spread: standard deviation of the differences.
        n: number of pairs, at least 2.
        level: significance level of the test.
        power: probability of finding the difference.
    """
    from scipy import optimize

    if spread == 0:
        return 0.0

    def excess_power(effect: float) -> float:
        return _power(effect, n, level) - power

    return float(optimize.brentq(excess_power, 1e-6, 60.0)) * spread


def seeds_needed(pair: Paired, difference: float = MARGIN, level: float = LEVEL) -> tuple[int, int]:
    """Return how many pairs a mean difference takes to be found with probability POWER.

    Args:
        pair: a pilot: at least 2 pairs, which are not all equal.
        difference: to be found.
        level: significance level.

    Returns:
        The number if the spread is that of the pilot, and if it is as large as the pilot leaves possible (the
        upper end of its one-sided 80 % interval: of 3 pairs, 2.1 times the spread).
    """
    from scipy import stats

    spread = pair.spread
    highest = spread * math.sqrt((pair.n - 1) / stats.chi2.ppf(1 - POWER, pair.n - 1))
    return _pairs_for(spread, difference, level), _pairs_for(float(highest), difference, level)


def _pairs_for(spread: float, difference: float, level: float) -> int:
    """Return the smallest number of pairs that find a difference."""
    from scipy import stats

    normal = (stats.norm.isf(level / 2) + stats.norm.ppf(POWER)) * spread / difference
    low, high = 1, max(math.ceil(normal**2), 2)  # too few; nearly enough, as a t-test needs a little more
    while _power(difference / spread, high, level) < POWER:
        low, high = high, high + 2
    while high - low > 1:
        middle = max((low + high) // 2, high - 2)  # the answer is near the upper end
        if _power(difference / spread, middle, level) < POWER:
            low = middle
        else:
            high = middle
    return high


def _power(effect: float, n: int, level: float) -> float:
    """Return the probability that a paired t-test of n pairs finds a mean of `effect` standard deviations."""
    from scipy import stats

    critical, shift = stats.t.ppf(1 - level / 2, n - 1), effect * math.sqrt(n)
    # scipy gives NaN for large shifts, where the power is 1.
    upper = np.nan_to_num(stats.nct.sf(critical, n - 1, shift), nan=1.0)
    lower = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift), nan=0.0)
    return float(upper + lower)


def holm(ps: Sequence[float]) -> list[float]:
    """Adjust p-values for multiple comparisons by Holm's method; NaN stays NaN."""
    known = [index for index, p in enumerate(ps) if not math.isnan(p)]
    adjusted = list(map(float, ps))
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def conclude(
    label: str,
    baseline: str,
    pair: Paired,
    adjusted: float,
    unit: str = "seeds",
    metric: str = "mAP50-95",
) -> str:
    """Return a sentence about a metric that the adjusted p-value supports."""
    points = f"{abs(pair.mean) * 100:.1f} points of {metric}"
    if pair.n < 2 or math.isnan(adjusted):
        return f"{label}: one run cannot show a difference to {baseline}; give more seeds."
    narrow = f", too narrow at {pair.n}" if pair.n < MIN_PAIRS and unit == "seeds" else ""
    p = f"p = {pair.p:.3f}" + (f", adjusted {adjusted:.3f}" if adjusted != pair.p else "")
    interval = f"95 % interval {pair.low * 100:+.1f} to {pair.high * 100:+.1f}{narrow}; {p}"
    if adjusted < LEVEL:
        side = "better" if pair.mean > 0 else "worse"
        return f"{label} is {side} than {baseline} by {points} ({interval}, {pair.n} {unit})."
    limit = ""
    if pair.p_equal < LEVEL:
        limit = f" They are equal within {MARGIN * 100:.0f} point (equivalence test, p = {pair.p_equal:.3f})."
    elif pair.detectable > 0:  # not unknown, and the models are not equal in all runs
        limit = f" A difference below {pair.detectable * 100:.1f} points would usually not be found."
        if pair.spread > 0 and pair.detectable > MARGIN and unit == "seeds":
            few, many = seeds_needed(pair)
            limit += f" To find 1 point takes about {few} seeds, up to {many} as the spread is uncertain."
    return f"{label} against {baseline}: no significant difference at {pair.n} {unit} ({interval}).{limit}"
