"""The interactive plots of a comparison, as Plotly figures in plain data: `data` and `layout`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from studies.compare.records import Records
from studies.compare.summary import ModelSummary, mean_and_spread

# Okabe and Ito's colours, which colour-blind readers can tell apart; black is the baseline.
_COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
Figure = dict[str, Any]


def color(index: int) -> str:
    """The colour of a model by its place in the table."""
    return _COLORS[index % len(_COLORS)]


def cost_plot(summaries: Sequence[ModelSummary], against: str) -> Figure | None:
    """mAP50-95 against `latency` or `gflops`; bars are a standard deviation over seeds, and quartiles.

    None where that is not known of all models.
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
            "y": [one.map[0]],
            "marker": {"color": color(index), "size": 11},
            "error_y": {"type": "data", "array": [_number(one.map[1])], "visible": True},
        }
        if against == "latency" and one.latency:
            middle, low, high = one.latency
            trace["error_x"] = {"type": "data", "array": [high - middle], "arrayminus": [middle - low]}
        data.append(trace)
    title = "latency of one image, ms" if against == "latency" else "GFLOPs (a multiply-add is two)"
    return {"data": data, "layout": _layout(title, "mAP50-95")}


def curve_plot(records: Records, figure: str = "mAP50-95") -> Figure:
    """A figure after each epoch: mean over seeds, in a band of one standard deviation."""
    data: list[dict[str, Any]] = []
    for index, model in enumerate(records.models):
        runs = [curve for seed in records.seeds if (curve := records.curve(model, seed, figure))]
        if not runs:
            continue
        length = min(map(len, runs))  # early stopping ends some sooner
        values = np.array([run[:length] for run in runs])
        middle = values.mean(0)
        spread = values.std(0, ddof=1) if len(runs) > 1 else np.zeros(length)
        epochs = list(range(1, length + 1))
        band = {"x": epochs + epochs[::-1], "y": [*(middle + spread), *(middle - spread)[::-1]]}
        shared = {"type": "scatter", "legendgroup": model, "name": model}
        data.append(
            shared
            | band
            | {"fill": "toself", "fillcolor": color(index), "opacity": 0.15, "line": {"width": 0}}
            | {"showlegend": False, "hoverinfo": "skip", "mode": "lines"}
        )
        line = {
            "mode": "lines" if length > 1 else "markers",
            "x": epochs,
            "y": middle.tolist(),
            "line": {"color": color(index)},
        }
        data.append(shared | line)
    return {"data": data, "layout": _layout("epoch", figure)}


def class_plot(records: Records, split: str) -> Figure:
    """AP of each class, a bar a model, with a standard deviation over seeds."""
    data = []
    for index, model in enumerate(records.models):
        found = [list(records.class_figure(model, name, split).values()) for name in records.classes]
        pairs = [mean_and_spread(values) if values else (0.0, 0.0) for values in found]
        data.append(
            {
                "type": "bar",
                "name": model,
                "x": records.classes,
                "y": [mean for mean, _ in pairs],
                "marker": {"color": color(index)},
                "error_y": {"type": "data", "array": [_number(spread) for _, spread in pairs]},
            }
        )
    return {"data": data, "layout": _layout("", "AP50-95") | {"barmode": "group"}}


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
