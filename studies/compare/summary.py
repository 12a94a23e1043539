"""Summarize each model of a comparison over seeds, as dataclasses and as markdown tables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from studies.compare.records import Key, Records
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
    minutes: float | None  # of a training, mean over the runs
    main: MetricSummary  # the metric that the conclusion is about
    metrics: tuple[MetricSummary, ...]  # all, `main` among them
    reached: tuple[float, int, int] | None  # see `epochs_to_reach`
    conclusion: str  # one sentence; empty for the baseline


def summarize(
    records: Records, split: str = "val", checkpoint: str = "best", resamples: int = 2000
) -> list[ModelSummary]:
    """Compare each model with the first one, paired by seed or by image."""
    baseline, *others = records.models
    of_images = any(records.paired_over_images(name, records.main) for name in others)
    unit = "images" if of_images else "folds" if records.folds else "seeds"
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
            minutes=_minutes(records, name),
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
    found = {name: _pair(records, name, metric, split, checkpoint, resamples) for name in others}
    pairs = {name: pair for name, pair in found.items() if pair is not None}
    adjusted = dict(zip(pairs, holm([pair.p for pair in pairs.values()]), strict=True))
    return [
        MetricSummary(
            metric,
            mean_and_spread(list(records.metric(name, metric, split, checkpoint).values())),
            pairs.get(name),
            adjusted.get(name, math.nan),
        )
        for name in records.models
    ]


def _pair(
    records: Records, name: str, metric: str, split: str, checkpoint: str, resamples: int
) -> Paired | None:
    over_images = records.paired_over_images(name, metric)
    if over_images is not None:
        return over_images
    a = records.metric(records.models[0], metric, split, checkpoint)
    b = records.metric(name, metric, split, checkpoint)
    return _compare(records, a, b, resamples, comparisons=len(records.models) - 1)


def _compare(
    records: Records, a: Mapping[Key, float], b: Mapping[Key, float], resamples: int, comparisons: int = 1
) -> Paired | None:
    """Compare the values of two models by seed and fold; None where they share none."""
    keys = [key for key in records.pairs if key in a and key in b]
    if not keys:
        return None
    of_a, of_b = ([one[key] for key in keys] for one in (a, b))
    overlap = 1 / (records.folds - 1) if records.folds > 1 else 0.0
    return compare_pairs(of_a, of_b, resamples, comparisons=comparisons, overlap=overlap)


def _latency(records: Records, name: str) -> tuple[float, float, float] | None:
    found = [records.info(name, f"latency{part}") for part in ("", "_low", "_high")]
    return None if found[0] is None else (found[0], found[1], found[2])


def _minutes(records: Records, name: str) -> float | None:
    rows = (row for row in records.results if row["model"] == name and row.get("minutes"))
    of_runs = {row.get("run"): float(row["minutes"]) for row in rows}
    return float(np.mean(list(of_runs.values()))) if of_runs else None


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Return mean and sample standard deviation; the latter is NaN for a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def epochs_to_reach(records: Records, name: str) -> tuple[float, int, int] | None:
    """Count the epochs after which a model's main metric reaches the best of the baseline's run of its seed.

    Returns:
        Mean over the runs that reach it, number of those runs, number of all runs; None without curves.
    """
    epochs, runs = [], 0
    for key in records.pairs:
        base, curve = records.curve(records.models[0], key), records.curve(name, key)
        if not base or not curve or max(base) == 0:  # every model would reach it at once
            continue
        runs += 1
        at = next((epoch for epoch, value in enumerate(curve, 1) if value >= max(base)), None)
        epochs += [] if at is None else [at]
    return (float(np.mean(epochs)) if epochs else math.nan, len(epochs), runs) if runs else None


def main_table(summaries: Sequence[ModelSummary]) -> str:
    """Return the main table as markdown, without empty columns."""
    heads = ["model", "parameters", "GFLOPs", "latency, ms", "training, min"]
    for metric in summaries[0].metrics:
        heads += [metric.name, "difference", "p (adjusted)"]
    rows = [[*heads, "epochs to the first's best"]]
    first = summaries[0]
    for one in summaries:
        size = "" if one.parameters is None else f"{one.parameters / 1e6:.3f} M"
        work = "" if one.gflops is None else f"{one.gflops:.2f}"
        minutes = "" if one.minutes is None else f"{one.minutes:.1f}{_ratio(one.minutes, first.minutes)}"
        cells = [one.model, size, work, _ms(one.latency, first.latency), minutes]
        for metric in one.metrics:
            cells += [_mean(metric.value), _difference(metric.pair), _p(metric.pair, metric.p_adjusted)]
        rows.append([*cells, _reached(one.reached)])
    known = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *lines = [f"| {' | '.join(cells)} |" for cells in zip(*known, strict=True)]
    return "\n".join([head, "|---" * len(known) + "|", *lines])


def class_table(records: Records, split: str = "val", resamples: int = 2000) -> str:
    """Return the mean AP, or accuracy, by class and its difference to the first model, in points."""
    prefix = records.metric_set.by_class
    return detail_table(records, {name: f"{prefix}/{name}" for name in records.classes}, split, resamples)


def size_table(records: Records, split: str = "val", resamples: int = 2000) -> str:
    """Return the mean AP of objects of each size, like `class_table`; empty where it is not known."""
    return detail_table(records, records.metric_set.sizes, split, resamples)


def error_table(records: Records, split: str = "val", resamples: int = 2000) -> str:
    """Return what each kind of error costs in mAP50, in points, like `class_table`."""
    return detail_table(records, records.metric_set.errors, split, resamples, points=True)


def detail_table(
    records: Records,
    columns: Mapping[str, str],
    split: str = "val",
    resamples: int = 2000,
    points: bool = False,
) -> str:
    """Return the means of some metrics of each model, and their differences to the first model, in points.

    Args:
        records: of the comparison.
        columns: heads of the table -> metrics; those that were not measured are left out.
        split: val or test.
        resamples: number of bootstrap resamples.
        points: means are in points, too.

    Returns:
        A markdown table; empty if none of the metrics was measured.
    """
    base = records.models[0]
    known = {head: name for head, name in columns.items() if records.metric(base, name, split)}
    if not known:
        return ""
    lines = [f"| model | {' | '.join(known)} |", "|---|" + "---|" * len(known)]
    for model in records.models:
        cells = [model]
        for name in known.values():
            a, b = records.metric(base, name, split), records.metric(model, name, split)
            mean = np.mean(list(b.values())) if b else math.nan
            cell = "" if not b else f"{mean * 100:.1f}" if points else f"{mean:.3f}"
            pair = None
            if model != base:
                pair = records.paired_over_images(model, name) or _compare(records, a, b, resamples)
            cells.append(cell + (f" ({_difference(pair)})" if pair else ""))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def image_table(records: Records, split: str = "val", count: int = 10) -> str:
    """Return the images whose own metric differs most between any model and the first one, as markdown."""
    by_model = {model: records.of_images(model, split) for model in records.models}
    base, *others = by_model.values()
    differing = {
        image: max((abs(one[image] - value) for one in others if image in one), default=0.0)
        for image, value in base.items()
    }
    worst = sorted(differing, key=lambda image: -differing[image])[:count]
    worst = [image for image in worst if differing[image] > 0]
    if not worst:
        return ""
    lines = [f"| image | {' | '.join(by_model)} |", "|---" * (len(by_model) + 1) + "|"]
    for image in worst:
        values = [one.get(image) for one in by_model.values()]
        cells = ["" if value is None else f"{value:.3f}" for value in values]
        lines.append(f"| {image} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(value: tuple[float, float]) -> str:
    return f"{value[0]:.3f}" + ("" if math.isnan(value[1]) else f" ± {value[1]:.3f}")


def _ms(latency: tuple[float, float, float] | None, first: tuple[float, float, float] | None) -> str:
    """Return a latency, with its quartiles, and its ratio to the first model's."""
    if latency is None:
        return ""
    median, low, high = latency
    return f"{median:.1f} ({low:.1f} to {high:.1f}){_ratio(median, first[0] if first else None)}"


def _ratio(value: float, first: float | None) -> str:
    """Return a ratio to the first model's value; nothing for that model itself."""
    return "" if not first or value == first else f", x {value / first:.2f}"


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
