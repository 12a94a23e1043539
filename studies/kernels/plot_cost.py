"""Plots of the kernel study: cost over kernel size, a line for each design."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from studies.kernels.cases import DESIGNS, NONE
from studies.kernels.cost_table import CostRow, groups
from utils.plots.figure import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 150
LOG_RATIO = 8  # of the largest to the smallest value, from which on an axis is logarithmic
# Two colours for colour-blind readers (Okabe and Ito): orange for 2D kernels, blue for separable ones.
# Dashed lines are without dilation, solid lines with; markers distinguish the lines without colour.
STYLES = {
    "LKATrivial": ("#D55E00", "s", "--"),
    "LKA": ("#D55E00", "^", "-"),
    "LSKATrivial": ("#0072B2", "D", "--"),
    "LSKA": ("#0072B2", "o", "-"),
}


@dataclass(frozen=True)
class Metric:
    """A quantity to plot: name and unit, value in a row, and quartiles if it has any."""

    label: str
    value: Callable[[CostRow], float]
    spread: Callable[[CostRow], tuple[float, float]] | None = None


PARAMETERS = Metric("parameters, millions", lambda row: row.parameters / 1e6)
GMACS = Metric("GMACs (multiply-adds, 1e9)", lambda row: row.gmacs)
GFLOPS = Metric("GFLOPs (2 x GMACs, as YOLOv5 counts)", lambda row: row.gflops)
FORWARD = Metric("forward, ms", lambda r: r.forward_ms, lambda r: (r.forward_low_ms, r.forward_high_ms))
STEP = Metric("training step, ms", lambda r: r.step_ms, lambda r: (r.step_low_ms, r.step_high_ms))
MEMORY = Metric("peak memory of a training step, MiB", lambda row: row.peak_mib)


def draw_all(rows: Sequence[CostRow], folder: Path) -> list[Path]:
    """Draw every plot that the rows have data for, and return the files."""
    files = []
    for title, members in groups(row for row in rows if row.part != "module").items():
        work = GFLOPS if members[0].part == "yolo" else GMACS
        files.append(folder / f"{members[0].model.lower()}.png")
        draw_model(title, members, [PARAMETERS, work, FORWARD, STEP, MEMORY], files[-1])
    alone = [row for row in rows if row.part == "module"]
    if alone:
        largest = max(row.side for row in alone)
        files.append(folder / "module-counts.png")
        draw_counts([row for row in alone if row.side == largest], files[-1])
        for name, metric in {"forward": FORWARD, "step": STEP, "memory": MEMORY}.items():
            files.append(folder / f"module-{name}.png")
            draw_grid(alone, metric, files[-1])
    return files


def draw_model(title: str, rows: Sequence[CostRow], metrics: Sequence[Metric], path: Path) -> None:
    """Draw one model: a panel for each of five metrics, and the legend in the sixth."""
    figure = new_figure(12, 7)
    panels = figure.subplots(2, 3).ravel()
    for axes, metric in zip(panels, metrics, strict=False):
        _draw(axes, rows, metric, _needs_log(rows, metric))
        axes.set_title(metric.label, fontsize=11)
        axes.set_xlabel("kernel size k")
    panels[-1].axis("off")
    panels[-1].legend(*panels[0].get_legend_handles_labels(), loc="upper left", frameon=False, fontsize=12)
    panels[-1].text(0.03, 0.02, _conditions(rows), transform=panels[-1].transAxes, fontsize=8, va="bottom")
    figure.suptitle(title, fontsize=13)
    save_figure(figure, path, DPI)


def draw_counts(rows: Sequence[CostRow], path: Path) -> None:
    """Draw parameters and multiply-adds of single modules, a column for each width."""
    widths = sorted({row.channels for row in rows})
    figure = new_figure(3 * max(len(widths), 2) + 0.5, 6)
    panels = figure.subplots(2, len(widths), squeeze=False)
    metrics = (PARAMETERS, GMACS)
    log = [_needs_log(rows, metric) for metric in metrics]
    for column, width in enumerate(widths):
        members = [row for row in rows if row.channels == width]
        for line, metric in enumerate(metrics):
            _draw(panels[line][column], members, metric, log[line])
            panels[line][0].set_ylabel(metric.label)
        panels[0][column].set_title(f"{width} channels", fontsize=11)
        panels[1][column].set_xlabel("kernel size k")
    side = rows[0].side
    _finish(figure, panels[0][0], f"The module alone, on a map of {side} x {side}")
    save_figure(figure, path, DPI)


def draw_grid(rows: Sequence[CostRow], metric: Metric, path: Path) -> None:
    """Draw a metric of single modules: a column for each width, a row for each map size."""
    widths = sorted({row.channels for row in rows})
    sides = sorted({row.side for row in rows}, reverse=True)
    figure = new_figure(3 * max(len(widths), 2) + 0.5, 2.6 * len(sides) + 1)
    panels = figure.subplots(len(sides), len(widths), squeeze=False)
    log = _needs_log(rows, metric)
    for line, side in enumerate(sides):
        for column, width in enumerate(widths):
            axes = panels[line][column]
            _draw(axes, [row for row in rows if (row.side, row.channels) == (side, width)], metric, log)
            if line == 0:
                axes.set_title(f"{width} channels", fontsize=11)
            if line == len(sides) - 1:
                axes.set_xlabel("kernel size k")
        panels[line][0].set_ylabel(f"{side} x {side}")
    _finish(figure, panels[0][0], f"The module alone: {metric.label}\n{_conditions(rows, ', ')}")
    save_figure(figure, path, DPI)


def _needs_log(rows: Sequence[CostRow], metric: Metric) -> bool:
    """Return whether the values of a group need a logarithmic axis."""
    for members in groups(rows).values():
        known = _known(metric.value(row) for row in members)
        if known and max(known) >= LOG_RATIO * min(known):
            return True
    return False


def _known(values: Iterable[float]) -> list[float]:
    return [value for value in values if math.isfinite(value) and value > 0]


def _draw(axes: Axes, rows: Sequence[CostRow], metric: Metric, log: bool) -> None:
    """Draw a line for each design, and a horizontal line for the model without attention."""
    for design, label in DESIGNS.items():
        line = sorted((row for row in rows if row.design == design), key=lambda row: row.k)
        if not line:
            continue
        colour, marker, dashes = STYLES[design]
        kernels, values = [row.k for row in line], [metric.value(row) for row in line]
        axes.plot(
            kernels,
            values,
            color=colour,
            marker=marker,
            linestyle=dashes,
            label=label,
            linewidth=1.8,
            markersize=5,
        )
        if metric.spread is not None:
            low, high = zip(*map(metric.spread, line), strict=True)
            axes.fill_between(kernels, low, high, color=colour, alpha=0.18, linewidth=0)
    for row in rows:
        if row.design == NONE:
            axes.axhline(metric.value(row), color="0.45", linestyle=":", linewidth=1.8, label="no attention")
    axes.set_xticks(sorted({row.k for row in rows if row.design != NONE}))
    axes.grid(alpha=0.25)
    ends = [metric.spread(row) if metric.spread else (metric.value(row),) for row in rows]
    _scale(axes, _known(value for pair in ends for value in pair), log)


def _scale(axes: Axes, known: Sequence[float], log: bool) -> None:
    """Set a logarithmic axis, or one that starts at zero."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if not known:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="0.4")
        return
    low, high = min(known), max(known)
    if not log:
        axes.set_ylim(0, 1.08 * high)
        return
    axes.set_yscale("log")
    axes.set_ylim(low / 1.35, high * 1.35)
    # Within two decades, labels at powers of ten only would be too few.
    steps = (1, 2, 5) if high < 100 * low else (1, 3) if high < 1000 * low else (1,)
    axes.yaxis.set_major_locator(LogLocator(subs=steps))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _finish(figure: Figure, first: Axes, title: str) -> None:
    handles, labels = first.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
    figure.suptitle(title, fontsize=12)


def _conditions(rows: Sequence[CostRow], separator: str = "\n") -> str:
    """Return the conditions of the measurements."""
    row = rows[0]
    machine = separator.join(textwrap.wrap(row.machine, 60)) if separator == "\n" else row.machine
    return separator.join([f"batch {row.batch}, float32", machine, "lines: medians; bands: quartiles"])
