"""Summarize each model of a comparison over seeds, as dataclasses and as markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studies.compare.records import Records
from studies.compare.statistics import Paired, compare_pairs, conclude, holm


@dataclass(frozen=True)
class MetricSummary:
    """One metric of a model."""

    name: str
    value: tuple[float, float]  # mean and standard deviation over seeds
    pair: Paired | None  # against the baseline; None for itself
    p_adjusted: float  # Holm, for all comparisons of the column


@dataclass(frozen=True)
class ModelSummary:
    """One row of the main table."""

    model: str
    parameters: float | None  # None for exported files, like GFLOPs
    gflops: float | None
    latency: tuple[float, float, float] | None  # ms: median, quartiles
    main: MetricSummary  # the metric that the conclusion is about
    metrics: tuple[MetricSummary, ...]  # all, `main` among them
    reached: tuple[float, int, int] | None  # see `epochs_to_reach`
    conclusion: str  # one sentence; empty for the baseline


def summarize(
    records: Records, split: str = "val", checkpoint: str = "best", resamples: int = 2000
) -> list[ModelSummary]:
    """Compare each model with the first one, paired by seed or by image."""
    baseline, *others = records.models
    unit = "images" if any(records.paired_over_images(name, records.main) for name in others) else "seeds"
    columns = {
        metric: _summarize_metric(records, metric, split, checkpoint, resamples) for metric in records.metrics
    }
    summaries = []
    for index, name in enumerate(records.models):
        main = columns[records.main][index]
        pair = main.pair
        summary = ModelSummary(
            model=name,
            parameters=records.info(name, "parameters"),
            gflops=records.info(name, "gflops"),
            latency=_latency(records, name),
            main=main,
            metrics=tuple(column[index] for column in columns.values()),
            reached=epochs_to_reach(records, name) if pair else None,
            conclusion=conclude(name, baseline, pair, main.p_adjusted, unit, main.name) if pair else "",
        )
        summaries.append(summary)
    return summaries


def _summarize_metric(
    records: Records, metric: str, split: str, checkpoint: str, resamples: int
) -> list[MetricSummary]:
    """Return one metric of every model."""
    others = records.models[1:]
    pairs = {name: _pair(records, name, metric, split, checkpoint, resamples) for name in others}
    adjusted = dict(zip(others, holm([pairs[name].p for name in others]), strict=True))
    return [
        MetricSummary(
            metric,
            mean_and_spread(list(records.metric(name, metric, split, checkpoint).values())),
            pairs.get(name),
            adjusted.get(name, math.nan),
        )
        for name in records.models
    ]


def _pair(records: Records, name: str, metric: str, split: str, checkpoint: str, resamples: int) -> Paired:
    over_images = records.paired_over_images(name, metric)
    if over_images is not None:
        return over_images
    a = records.metric(records.models[0], metric, split, checkpoint)
    b = records.metric(name, metric, split, checkpoint)
    seeds = [seed for seed in records.seeds if seed in a and seed in b]
    comparisons = len(records.models) - 1
    return compare_pairs(
        [a[seed] for seed in seeds], [b[seed] for seed in seeds], resamples, comparisons=comparisons
    )


def _latency(records: Records, name: str) -> tuple[float, float, float] | None:
    found = [records.info(name, f"latency{part}") for part in ("", "_low", "_high")]
    return None if found[0] is None else (found[0], found[1], found[2])


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; the latter is NaN for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def epochs_to_reach(records: Records, name: str) -> tuple[float, int, int] | None:
    """Count the epochs after which a model's main metric reaches the best of the baseline's run of its seed.

    Returns:
        Mean over the runs that reach it, number of those runs, number of all runs; None without curves.
    """
    epochs, runs = [], 0
    for seed in records.seeds:
        base, curve = records.curve(records.models[0], seed), records.curve(name, seed)
        if not base or not curve or max(base) == 0:  # every model would reach it at once
            continue
        runs += 1
        at = next((epoch for epoch, value in enumerate(curve, 1) if value >= max(base)), None)
        epochs += [] if at is None else [at]
    return (float(np.mean(epochs)) if epochs else math.nan, len(epochs), runs) if runs else None


def main_table(summaries: Sequence[ModelSummary]) -> str:
    """Return the main table as markdown, without empty columns."""
    heads = ["model", "parameters", "GFLOPs", "latency, ms"]
    for metric in summaries[0].metrics:
        heads += [metric.name, "difference", "p (adjusted)"]
    rows = [[*heads, "epochs to the first's best"]]
    for one in summaries:
        size = "" if one.parameters is None else f"{one.parameters / 1e6:.3f} M"
        work = "" if one.gflops is None else f"{one.gflops:.2f}"
        cells = [one.model, size, work, _ms(one.latency)]
        for metric in one.metrics:
            cells += [_mean(metric.value), _difference(metric.pair), _p(metric.pair, metric.p_adjusted)]
        rows.append([*cells, _reached(one.reached)])
    known = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *lines = [f"| {' | '.join(cells)} |" for cells in zip(*known, strict=True)]
    return "\n".join([head, "|---" * len(known) + "|", *lines])


def class_table(records: Records, split: str = "val", resamples: int = 2000) -> str:
    """Return the mean AP, or accuracy, by class and its difference to the first model, in points."""
    names = records.classes
    lines = [f"| model | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    base = records.models[0]
    for model in records.models:
        cells = [model]
        for name in names:
            a, b = records.of_class(base, name, split), records.of_class(model, name, split)
            seeds = [seed for seed in a if seed in b]
            if not seeds:
                cells.append("")
                continue
            cell = f"{np.mean([b[seed] for seed in seeds]):.3f}"
            if model != base:
                pair = compare_pairs([a[s] for s in seeds], [b[s] for s in seeds], resamples)
                cell += f" ({_difference(pair)})"
            cells.append(cell)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f}" + ("" if math.isnan(value[1]) else f" ± {value[1]:.3f}")


def _ms(latency: tuple[float, float, float] | None) -> str:
    return "" if latency is None else f"{latency[0]:.1f} ({latency[1]:.1f} to {latency[2]:.1f})"


def _difference(pair: Paired | None) -> str:
    if pair is None:
        return ""
    interval = "" if math.isnan(pair.low) else f" [{pair.low * 100:+.1f}, {pair.high * 100:+.1f}]"
    return f"{pair.mean * 100:+.1f}{interval}"


def _p(pair: Paired | None, adjusted: float) -> str:
    if pair is None or math.isnan(pair.p):
        return ""
    return f"{pair.p:.3f} ({adjusted:.3f})"


def _reached(reached: tuple[float, int, int] | None) -> str:
    if reached is None:
        return ""
    epoch, count, runs = reached
    plural = "s" if runs != 1 else ""
    return f"never ({runs} run{plural})" if not count else f"{epoch:.0f} ({count} of {runs} run{plural})"
