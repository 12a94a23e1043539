"""The effect of every model that docs/results has measured, as a table and a figure."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from studies.compare.records import RESULTS, Records, read_records
from studies.compare.statistics import LEVEL, Paired
from studies.compare.summary import summarize

FEW = 5  # seeds from which on a difference is in the table
_METRICS = {"context": "mAP50"}  # of datasets whose conclusions are not about the usual metric
_RANGE = 3  # points that each panel shows at least, so that noise does not look large
_IGNORED = "--graft off"  # loading weights by key is another question, and off the scale


@dataclass(frozen=True)
class Effect:
    """The difference of a model to the plain one of the same study."""

    data: str
    model: str
    metric: str
    split: str
    plain: float  # mean metric of the plain model
    pair: Paired
    p_adjusted: float
    study: str  # its folder


def collect(folder: Path) -> list[Effect]:
    """Return the effects of all studies in `folder`; of those of one model, that with the most seeds."""
    best: dict[tuple[str, str], Effect] = {}
    for file in sorted(folder.glob(f"*/{RESULTS}")):
        for effect in _effects_of(file.parent):
            key = effect.data, effect.model
            if key not in best or best[key].pair.n < effect.pair.n:
                best[key] = effect
    return sorted(best.values(), key=lambda one: (one.data, one.model))


def read_study(folder: Path) -> Records:
    """Read the csv files of a study; conclusions are about the metric of its dataset."""
    records = read_records(folder)
    records.chosen = _METRICS.get(_dataset(records), "")
    return records


def _effects_of(study: Path) -> list[Effect]:
    records = read_study(study)
    data = _dataset(records)
    split = "test" if "test" in records.splits() else "val"
    first, *others = summarize(records, split)
    return [
        Effect(data, _short(one.model), one.main.name, split, first.main.value[0], one.main.pair,
               one.main.p_adjusted, study.name)
        for one in others
        if one.main.pair is not None and one.main.pair.n > 1 and _IGNORED not in one.model
    ]  # fmt: skip


def _dataset(records: Records) -> str:
    """Return the name of the dataset, from the flags of the first run."""
    words = shlex.split(str(records.results[0].get("flags", "")))
    return Path(words[words.index("--data") + 1]).stem if "--data" in words else ""


def _short(model: str) -> str:
    return re.sub(r"^yolov5n-|--attention |--", "", model)


def table(effects: Sequence[Effect]) -> str:
    """Return the effects that rest on at least FEW seeds as a markdown table."""
    lines = ["| data | model | metric | plain | seeds | difference, points | finding |", "|---" * 7 + "|"]
    for one in effects:
        pair = one.pair
        if pair.n < FEW:
            continue
        interval = f"{pair.mean * 100:+.1f} [{pair.low * 100:+.1f}, {pair.high * 100:+.1f}]"
        cells = (one.data, one.model, f"{one.metric}, {one.split}", f"{one.plain:.3f}", str(pair.n), interval)
        lines.append(f"| {' | '.join(cells)} | {_finding(one)} |")
    return "\n".join(lines)


def _finding(one: Effect) -> str:
    if one.p_adjusted < LEVEL:
        return f"**{'better' if one.pair.mean > 0 else 'worse'}** (p = {one.p_adjusted:.3f})"
    if one.pair.p_equal < LEVEL:
        return f"equal within 1 point (p = {one.pair.p_equal:.3f})"
    return f"no difference found; {one.pair.detectable * 100:.1f} points would have been"


def draw(effects: Sequence[Effect], file: Path) -> None:
    """Draw all effects with their intervals, one panel for each dataset; few seeds are hollow."""
    from utils.plots.figure import new_figure, save_figure

    by_data: dict[str, list[Effect]] = {}
    for one in effects:
        by_data.setdefault(one.data, []).append(one)
    figure = new_figure(9, 1 + 0.24 * len(effects) + 0.55 * len(by_data))
    heights = [len(group) + 1.5 for group in by_data.values()]
    axes = figure.subplots(len(by_data), 1, squeeze=False, gridspec_kw={"height_ratios": heights})[:, 0]
    for axis, (data, group) in zip(axes, by_data.items(), strict=True):
        for row, one in enumerate(reversed(group)):
            mean, low, high = (100 * value for value in (one.pair.mean, one.pair.low, one.pair.high))
            known = one.pair.n >= FEW
            color = "#0072B2" if known else "#999999"
            axis.plot([low, high], [row, row], color=color, linewidth=2 if known else 1)
            axis.plot(mean, row, "o", color=color, markerfacecolor=color if known else "white", markersize=5)
        axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
        axis.set_yticks(
            range(len(group)), [f"{one.model} ({one.pair.n})" for one in reversed(group)], fontsize=7
        )
        axis.set_ylim(-0.7, len(group) - 0.3)
        left, right = axis.get_xlim()
        axis.set_xlim(min(left, -_RANGE), max(right, _RANGE))
        first = group[0]
        axis.set_title(
            f"{data}: {first.metric} on {first.split}, difference to plain in points", fontsize=8, loc="left"
        )
        axis.tick_params(axis="x", labelsize=7)
    save_figure(figure, file, dpi=110)
