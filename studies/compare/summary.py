"""Summarize each model of a comparison over seeds, as dataclasses and as markdown tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from studies.compare.records import Records
from studies.compare.statistics import Paired, compare_pairs, conclude, holm

_HEADS = (
    *("model", "parameters", "GFLOPs", "latency, ms", "mAP50", "difference", "p (adjusted)"),
    *("mAP50-95", "difference", "p (adjusted)", "epochs to the first's best"),
)


@dataclass(frozen=True)
class ModelSummary:
    """One row of the main table; mAP is given as mean and standard deviation over seeds."""

    model: str
    parameters: float | None  # None for exported files, like GFLOPs
    gflops: float | None
    latency: tuple[float, float, float] | None  # ms: median, quartiles
    map50: tuple[float, float]
    map: tuple[float, float]
    pair50: Paired | None  # mAP50 against the baseline; None for itself
    pair: Paired | None  # mAP50-95
    p50_adjusted: float  # Holm, for all comparisons of the table
    p_adjusted: float
    reached: tuple[float, int, int] | None  # see `epochs_to_reach`
    conclusion: str  # one sentence; empty for the baseline


def summarize(
    records: Records, split: str = "val", checkpoint: str = "best", resamples: int = 2000
) -> list[ModelSummary]:
    """Compare each model with the first one, paired by seed or by image."""
    baseline, *others = records.models
    unit = "images" if any(records.paired_over_images(name, "mAP50-95") for name in others) else "seeds"
    pairs = {name: _pair(records, name, "mAP50-95", split, checkpoint, resamples) for name in others}
    pairs50 = {name: _pair(records, name, "mAP50", split, checkpoint, resamples) for name in others}
    adjusted = dict(zip(others, holm([pairs[name].p for name in others]), strict=True))
    adjusted50 = dict(zip(others, holm([pairs50[name].p for name in others]), strict=True))
    return [
        ModelSummary(
            model=name,
            parameters=records.info(name, "parameters"),
            gflops=records.info(name, "gflops"),
            latency=_latency(records, name),
            map50=mean_and_spread(list(records.metric(name, "mAP50", split, checkpoint).values())),
            map=mean_and_spread(list(records.metric(name, "mAP50-95", split, checkpoint).values())),
            pair50=pairs50.get(name),
            pair=pairs.get(name),
            p50_adjusted=adjusted50.get(name, math.nan),
            p_adjusted=adjusted.get(name, math.nan),
            reached=epochs_to_reach(records, name) if name != baseline else None,
            conclusion=conclude(name, baseline, pairs[name], adjusted[name], unit) if name in pairs else "",
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
    """Count the epochs after which a model reaches the best mAP50-95 of the baseline's run of the same seed.

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
    rows = [_HEADS]
    for one in summaries:
        size = "" if one.parameters is None else f"{one.parameters / 1e6:.3f} M"
        work = "" if one.gflops is None else f"{one.gflops:.2f}"
        columns50 = (_mean(one.map50), _difference(one.pair50), _p(one.pair50, one.p50_adjusted))
        columns = (_mean(one.map), _difference(one.pair), _p(one.pair, one.p_adjusted))
        rows.append((one.model, size, work, _ms(one.latency), *columns50, *columns, _reached(one.reached)))
    known = [column for column in zip(*rows, strict=True) if any(column[1:])]
    head, *lines = [f"| {' | '.join(cells)} |" for cells in zip(*known, strict=True)]
    return "\n".join([head, "|---" * len(known) + "|", *lines])


def class_table(records: Records, split: str = "val", resamples: int = 2000) -> str:
    """Return mean AP by class and its paired difference to the first model, in points, as markdown."""
    names = records.classes
    lines = [f"| model | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    base = records.models[0]
    for model in records.models:
        cells = [model]
        for name in names:
            a, b = records.class_ap(base, name, split), records.class_ap(model, name, split)
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
