"""Paired comparisons: how large a difference is, how sure, and what could have been seen at all.

Seeds are few, so the verdict rests on Student's paired t-test, which keeps its 5 % at any number of
pairs; the percentile bootstrap alone would be far too narrow for 3 to 10 of them. Its interval is shown
widened as Hesterberg (What Teachers Should Know About the Bootstrap, arXiv:1411.5279, section 3.2.4)
proposes, so that interval and test agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.base.seeds import generator

LEVEL = 0.05  # a difference is called one if chance alone would give it less often than this
POWER = 0.8
ENOUGH = 5  # pairs from which on the bootstrap interval is nearly as wide as it says
_STREAM = 77  # keeps the draws of the bootstrap apart from all others


@dataclass(frozen=True)
class Paired:
    """A mean difference over n pairs, B minus A."""

    n: int
    mean: float
    low: float  # 95 % bootstrap confidence interval
    high: float
    p: float  # two-sided; NaN where it cannot be computed
    detectable: float  # difference that this many pairs would show 4 times in 5, adjusted; NaN if unknown


def compare_pairs(
    a: Sequence[float], b: Sequence[float], resamples: int = 2000, seed: int = 0, comparisons: int = 1
) -> Paired:
    """Compare two models' figures, paired by position (the same seed).

    Args:
        a: (n,) figures of the baseline.
        b: (n,) figures of the other model.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        comparisons: in all, that share the error level; fewer differences can be found among many.

    Raises:
        ValueError: not as many of one as of the other, or none.
    """
    difference = np.asarray(b, float) - np.asarray(a, float)
    n = len(difference)
    if len(a) != len(b) or n == 0:
        raise ValueError(f"pairs are needed, not {len(a)} and {len(b)} figures")
    mean = float(difference.mean())
    spread = float(difference.std(ddof=1)) if n > 1 else math.nan
    if n < 2:
        return Paired(n, mean, math.nan, math.nan, math.nan, math.nan)
    low, high = bootstrap_interval(difference, resamples, seed)
    detectable = detectable_difference(spread, n, LEVEL / comparisons)
    return Paired(n, mean, low, high, paired_p(difference), detectable)


def paired_p(difference: np.ndarray) -> float:
    """Two-sided p of Student's t-test that the mean of `difference` (n,) is zero; 1 if all are zero."""
    from scipy import stats

    if not difference.any():
        return 1.0
    if np.ptp(difference) == 0:
        return 0.0
    return float(stats.ttest_1samp(difference, 0.0).pvalue)


def bootstrap_interval(
    values: np.ndarray, resamples: int, seed: int = 0, level: float = LEVEL
) -> tuple[float, float]:
    """Widened percentile bootstrap interval of the mean of `values` (n,), n at least 2.

    The percentiles are those whose normal interval would be as wide as the t-interval of n values.
    With fewer than 5 values it reaches their range and can go no further: it is then too narrow.
    """
    from scipy import stats

    n = len(values)
    rows = generator(seed, _STREAM, n).integers(n, size=(resamples, n))
    means = values[rows].mean(1)
    tail = stats.norm.cdf(-math.sqrt(n / (n - 1)) * stats.t.ppf(1 - level / 2, n - 1))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def detectable_difference(spread: float, n: int, level: float = LEVEL, power: float = POWER) -> float:
    """Mean difference that a paired t-test at `level` finds with probability `power`.

    Args:
        spread: standard deviation of the differences.
        n: pairs, at least 2.
        level: of the test.
        power: probability to find it.
    """
    from scipy import optimize, stats

    if spread == 0:
        return 0.0
    critical = stats.t.ppf(1 - level / 2, n - 1)

    def missing(effect: float) -> float:
        shift = effect * math.sqrt(n)
        # scipy gives NaN far out, where it is certain that the difference is found.
        found = np.nan_to_num(stats.nct.sf(critical, n - 1, shift), nan=1.0)
        other = np.nan_to_num(stats.nct.cdf(-critical, n - 1, shift), nan=0.0)
        return float(found + other) - power

    return float(optimize.brentq(missing, 1e-6, 60.0)) * spread


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjustment of p-values for all comparisons of a table; NaN stays."""
    known = [index for index, p in enumerate(ps) if not math.isnan(p)]
    adjusted = list(map(float, ps))
    highest = 0.0
    for rank, index in enumerate(sorted(known, key=lambda i: ps[i])):
        highest = max(highest, min(1.0, (len(known) - rank) * ps[index]))
        adjusted[index] = highest
    return adjusted


def verdict(label: str, baseline: str, pair: Paired, adjusted: float, what: str = "seeds") -> str:
    """What the numbers allow one to say of mAP50-95, and no more."""
    points = f"{abs(pair.mean) * 100:.1f} points of mAP50-95"
    if pair.n < 2 or math.isnan(adjusted):
        return f"{label}: one run says nothing about {label} against {baseline}; give more seeds."
    narrow = f", too narrow at {pair.n}" if pair.n < ENOUGH else ""
    p = f"p = {pair.p:.3f}" + (f", adjusted {adjusted:.3f}" if adjusted != pair.p else "")
    interval = f"95 % interval {pair.low * 100:+.1f} to {pair.high * 100:+.1f}{narrow}; {p}"
    if adjusted < LEVEL:
        side = "better" if pair.mean > 0 else "worse"
        return f"{label} is {side} than {baseline} by {points} ({interval}, {pair.n} {what})."
    limit = ""
    if pair.detectable > 0:  # neither unknown nor of models that are equal in all runs
        limit = f" A difference below {pair.detectable * 100:.1f} points would mostly have gone unnoticed."
    return f"{label} against {baseline}: no difference can be told at {pair.n} {what} ({interval}).{limit}"
