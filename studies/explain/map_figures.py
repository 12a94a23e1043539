"""Figures of maps over an image: attention gates, and heat maps with boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from studies.explain.heatmap import Heat
from studies.explain.labelled_models import ModelInput
from studies.explain.layers import GateMap
from utils.plots.annotator import colors, readable_on
from utils.plots.figure import disable_mathtext, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 130
_PANEL_AREA, _SMALL_AREA = 16.0, 8.0  # square inches of a panel among few, and among many
_FEW = 8  # panels
_OPACITY = 0.6  # of a map over its image
_FLAT = 1e-6  # a smaller range is rounding error


def draw_gates(item: ModelInput, models: Sequence[tuple[str, Sequence[GateMap]]], path: Path) -> None:
    """Draw the gates of one image: for each model a row with the image, then a panel for each block.

    Rows with many blocks are wrapped. Blocks with the same name in different models share a scale.

    Args:
        item: the image.
        models: label and gates of each model that has gates.
        path: image to write.
    """
    blocks = max(len(gates) for _, gates in models)
    columns = min(blocks + 1, 5 if _is_tall(item) else 4)
    lines = [-(-len(gates) // (columns - 1)) for _, gates in models]
    figure, grid = _grid(item, sum(lines), columns, room_for_bars=True)
    scales = _common_scales([gate for _, gates in models for gate in gates])
    for index, (label, gates) in enumerate(models):
        panels = grid[sum(lines[:index]) : sum(lines[: index + 1])]
        _plain(panels[0, 0], item, f"{label}\n{item.title}")
        for axes, gate in zip(panels[:, 1:].flat, gates, strict=False):
            _draw_gate(figure, axes, item, gate, scales[gate.block])
    figure.suptitle("Attention gates: mean over channels of A(x) in y = x A(x)", fontsize=13)
    save_figure(figure, path, _DPI)


def _common_scales(gates: Sequence[GateMap]) -> dict[str, tuple[float, float]]:
    """Return the lowest and highest value of the maps of each block."""
    scales: dict[str, tuple[float, float]] = {}
    for gate in gates:
        low, high = scales.get(gate.block, (np.inf, -np.inf))
        scales[gate.block] = min(low, float(gate.factor.min())), max(high, float(gate.factor.max()))
    return scales


def _draw_gate(
    figure: Figure, axes: Axes, item: ModelInput, gate: GateMap, scale: tuple[float, float]
) -> None:
    low, high = scale
    if high - low < _FLAT * max(abs(low), abs(high), 1):  # one colour, at the centre of the bar
        low, high = low - 0.5, high + 0.5
    _show_grey(axes, item)
    shown = _lay_over(axes, item, item.crop(gate.factor), "viridis", low, high)
    bar = figure.colorbar(shown, cax=axes.inset_axes((1.02, 0, 0.035, 1)))  # as high as the image
    bar.ax.tick_params(labelsize=8)
    bar.ax.ticklabel_format(useOffset=False)
    numbers = " / ".join(f"{value:.4g}" for value in _low_mean_high(gate.factor))
    words = f"{gate.block}\nmin / mean / max {numbers}\nmean |A(x) - 1| {gate.change:.3g}"
    disable_mathtext([axes.set_title(words, fontsize=9)])


def _low_mean_high(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.min()), float(values.mean()), float(values.max())


def draw_heat(
    item: ModelInput,
    models: Sequence[tuple[str, Heat, Mapping[int, str]]],
    title: str,
    path: Path,
) -> None:
    """Draw one image and its heat maps side by side, with boxes.

    Args:
        item: the image.
        models: label, heat map and class names of each model.
        title: of the figure.
        path: image to write.
    """
    columns = min(len(models) + 1, 5 if _is_tall(item) else 3)
    figure, grid = _grid(item, -(-(len(models) + 1) // columns), columns)
    panels = grid.ravel()
    _plain(panels[0], item, item.title)
    shown = None
    for axes, (label, heat, names) in zip(panels[1:], models, strict=False):
        shown = _draw_one_heat(axes, item, label, heat, names) or shown
    if shown is not None:
        bar = figure.colorbar(shown, ax=list(panels), fraction=0.03, pad=0.01, shrink=0.8)
        bar.set_label("as a fraction of each map's peak")
    figure.suptitle(title, fontsize=13)
    save_figure(figure, path, _DPI)


def _draw_one_heat(axes: Axes, item: ModelInput, label: str, heat: Heat, names: Mapping[int, str]) -> Any:
    count = len(heat.detections)
    boxes = heat.detections.shape[1] == 6
    words = f"{count} box{'' if count == 1 else 'es'}" if count else "no boxes"
    if not boxes:
        probability, number = heat.detections[0].tolist()
        words = f"{names[int(number)]} {probability:.2f}"
    shown = None
    if heat.heat is None:
        axes.imshow(item.image)
        words += ": nothing to explain" if not count else ": no positive features"
    else:
        _show_grey(axes, item)
        shown = _lay_over(axes, item, item.crop(heat.heat), "inferno", 0, 1)
    _set_limits(axes, item)
    if boxes:
        _draw_boxes(axes, item.scale_boxes(heat.detections), names)
    disable_mathtext([axes.set_title(f"{label}\n{words}", fontsize=10)])
    return shown


def _draw_boxes(axes: Axes, detections: np.ndarray, names: Mapping[int, str]) -> None:
    """Draw boxes (n, 6) in the colours of their classes, the most confident on top."""
    from matplotlib.patches import Rectangle
    from matplotlib.patheffects import withStroke

    size = 7.5 if len(detections) <= 12 else 6
    right = axes.get_xlim()[1]
    for x1, y1, x2, y2, confidence, kind in detections[::-1].tolist():
        rgb = colors(int(kind))
        ink, color = (tuple(c / 255 for c in shade) for shade in (readable_on(rgb[::-1]), rgb))
        box = Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, linewidth=1.4)
        box.set_path_effects([withStroke(linewidth=2.4, foreground="white")])  # dark colours on dark maps
        axes.add_patch(box)
        x, side = (x1, "left") if x1 < 0.8 * right else (min(x2, right), "right")
        label = f"{names.get(int(kind), int(kind))} {confidence:.2f}"
        text = axes.text(x, y1, label, fontsize=size, color=ink, ha=side, va="bottom" if y1 > 30 else "top")
        text.set(clip_on=True, bbox={"facecolor": color, "edgecolor": "none", "pad": 1.0})
        disable_mathtext([text])


def _grid(
    item: ModelInput, lines: int, columns: int, room_for_bars: bool = False
) -> tuple[Figure, np.ndarray]:
    """Make a grid of empty panels with the aspect ratio of the image."""
    height, width = item.image.shape[:2]
    ratio = min(max(width / height, 0.4), 2.5)
    area = _PANEL_AREA if lines * columns <= _FEW else _SMALL_AREA
    panel_w, panel_h = (area * ratio) ** 0.5, (area / ratio) ** 0.5
    figure = new_figure((panel_w + 0.7 * room_for_bars) * columns + 0.6, (panel_h + 0.8) * lines + 0.6)
    engine: Any = figure.get_layout_engine()
    engine.set(h_pad=0.1)  # inches; titles have several lines
    grid = figure.subplots(lines, columns, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    return figure, grid


def _is_tall(item: ModelInput) -> bool:
    return item.image.shape[0] > item.image.shape[1]


def _plain(axes: Axes, item: ModelInput, title: str) -> None:
    axes.imshow(item.image)
    disable_mathtext([axes.set_title(title, fontsize=10)])
    _set_limits(axes, item)


def _show_grey(axes: Axes, item: ModelInput) -> None:
    axes.imshow(cv2.cvtColor(item.image, cv2.COLOR_RGB2GRAY), cmap="gray", vmin=0, vmax=255)


def _lay_over(axes: Axes, item: ModelInput, values: np.ndarray, cmap: str, low: float, high: float) -> Any:
    """Draw a map over the image, in the coordinates of its pixels."""
    height, width = item.image.shape[:2]
    edges = (-0.5, width - 0.5, height - 0.5, -0.5)
    return axes.imshow(values, cmap=cmap, vmin=low, vmax=high, alpha=_OPACITY, extent=edges)


def _set_limits(axes: Axes, item: ModelInput) -> None:
    height, width = item.image.shape[:2]
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
