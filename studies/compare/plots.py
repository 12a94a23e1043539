"""Interactive plots of a comparison, as figures of Plotly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.compare.records import Records
from studies.compare.summary import ModelSummary, mean_and_spread

PlotlyFigure = dict[str, Any]  # `data` and `layout`
# Okabe and Ito's palette for colour-blind readers; black is the baseline.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def effect_plot(summaries: Sequence[ModelSummary]) -> PlotlyFigure | None:
    """Plot the difference of each model to the first one, in points of the main metric, with its interval.

    None if there is no interval.
    """
    data = []
    for index, one in enumerate(summaries):
        pair = one.main.pair
        if pair is None or np.isnan(pair.low):
            continue
        mean, low, high = (100 * value for value in (pair.mean, pair.low, pair.high))
        bars = {"type": "data", "array": [high - mean], "arrayminus": [mean - low]}
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": one.model,
                "x": [mean],
                "y": [one.model],
                "marker": {"color": _color(index), "size": 11},
                "error_x": bars,
            }
        )
    if not data:
        return None
    layout = _layout(f"points of {summaries[0].main.name}, 95 % interval", "")
    zero = {"type": "line", "x0": 0, "x1": 0, "yref": "paper", "y0": 0, "y1": 1, "line": {"dash": "dot"}}
    return {"data": data, "layout": layout | {"shapes": [zero], "showlegend": False}}


def cost_plot(summaries: Sequence[ModelSummary], against: str) -> PlotlyFigure | None:
    """Plot the main metric against `latency` or `gflops`; bars: standard deviation over seeds, and quartiles.

    None if the cost of a model is unknown.
    """
    known = [one.latency if against == "latency" else one.gflops for one in summaries]
    if any(value is None for value in known):
        return None
    data = []
    for index, one in enumerate(summaries):
        x = one.latency[0] if against == "latency" and one.latency else one.gflops
        trace: dict[str, Any] = {
            "type": "scatter",
            "mode": "markers",
            "name": one.model,
            "x": [x],
            "y": [one.main.value[0]],
            "marker": {"color": _color(index), "size": 11},
            "error_y": {"type": "data", "array": [_number(one.main.value[1])], "visible": True},
        }
        if against == "latency" and one.latency:
            median, low, high = one.latency
            trace["error_x"] = {"type": "data", "array": [high - median], "arrayminus": [median - low]}
        data.append(trace)
    title = "latency of one image, ms" if against == "latency" else "GFLOPs (a multiply-add is two)"
    return {"data": data, "layout": _layout(title, summaries[0].main.name)}


def curve_plot(records: Records) -> PlotlyFigure:
    """Plot the main metric after each epoch: mean over seeds, in a band of one standard deviation."""
    data: list[dict[str, Any]] = []
    for index, model in enumerate(records.models):
        runs = [curve for key in records.pairs if (curve := records.curve(model, key))]
        if not runs:
            continue
        length = min(map(len, runs))  # early stopping may end a run earlier
        values = np.array([run[:length] for run in runs])
        mean = values.mean(0)
        spread = values.std(0, ddof=1) if len(runs) > 1 else np.zeros(length)
        epochs = list(range(1, length + 1))
        band = {"x": epochs + epochs[::-1], "y": [*(mean + spread), *(mean - spread)[::-1]]}
        shared = {"type": "scatter", "legendgroup": model, "name": model}
        data.append(
            shared
            | band
            | {"fill": "toself", "fillcolor": _color(index), "opacity": 0.15, "line": {"width": 0}}
            | {"showlegend": False, "hoverinfo": "skip", "mode": "lines"}
        )
        line = {
            "mode": "lines" if length > 1 else "markers",
            "x": epochs,
            "y": mean.tolist(),
            "line": {"color": _color(index)},
        }
        data.append(shared | line)
    return {"data": data, "layout": _layout("epoch", records.of_epochs)}


def class_plot(records: Records, split: str) -> PlotlyFigure:
    """Plot AP or accuracy by class, with a bar for each model and a standard deviation over seeds."""
    data = []
    for index, model in enumerate(records.models):
        found = [list(records.of_class(model, name, split).values()) for name in records.classes]
        pairs = [mean_and_spread(values) if values else (0.0, 0.0) for values in found]
        data.append(
            {
                "type": "bar",
                "name": model,
                "x": records.classes,
                "y": [mean for mean, _ in pairs],
                "marker": {"color": _color(index)},
                "error_y": {"type": "data", "array": [_number(spread) for _, spread in pairs]},
            }
        )
    return {"data": data, "layout": _layout("", records.metric_set.class_axis) | {"barmode": "group"}}


def _color(index: int) -> str:
    return _COLORS[index % len(_COLORS)]


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _layout(x: str, y: str) -> dict[str, Any]:
    return {
        "xaxis": {"title": {"text": x}, "automargin": True},
        "yaxis": {"title": {"text": y}, "automargin": True},
        "legend": {"orientation": "h", "y": -0.25},
        "margin": {"l": 50, "r": 15, "t": 15, "b": 50},
        "template": "none",
        "height": 420,
    }
