"""Plot precision, recall, F1 and PR curves, and the confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from utils.ops.precision import smooth
from utils.plots.annotator import colors_on_white
from utils.plots.figure import disable_mathtext, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LEGEND_UP_TO = 20  # classes; more do not fit beside the plot
NUMBERS_UP_TO = 29  # classes; with more, the cells of the matrix have no room for numbers
TICKS_UP_TO = 99  # classes; with more, their names along the axes cannot be read
DPI = 250


def plot_pr_curve(
    px: np.ndarray, py: np.ndarray, ap: np.ndarray, path: Path, names: Sequence[str] = ()
) -> None:
    """Plot precision over recall.

    Args:
        px: (k,) recalls.
        py: (n, k) precision of each class at these recalls.
        ap: (n, 10) average precision of each class at IoU 0.50 to 0.95.
        path: image to write.
        names: names of the n classes.
    """
    labels = [f"{name} {value:.3f}" for name, value in zip(names, ap[:, 0], strict=False)]
    figure, axes = _curves(px, py, labels)
    mean = f"all classes {ap[:, 0].mean() if len(ap) else 0:.3f} mAP@0.5"
    axes.plot(px, _mean(py, len(px)), linewidth=3, color="blue", label=mean)
    _finish(figure, axes, path, "Recall", "Precision", "Precision-Recall Curve")


def plot_mc_curve(
    px: np.ndarray,
    py: np.ndarray,
    path: Path,
    names: Sequence[str] = (),
    xlabel: str = "Confidence",
    ylabel: str = "Metric",
) -> None:
    """Plot a metric over the confidence threshold; the legend names the maximum of the mean over classes.

    Args:
        px: (k,) confidences.
        py: (n, k) metric of each class at these confidences.
        path: image to write.
        names: names of the n classes.
        xlabel: label of the x axis.
        ylabel: label of the y axis, also in the title.
    """
    figure, axes = _curves(px, py, list(names))
    mean = smooth(_mean(py, len(px)), 0.05)[: len(px)]
    best = f"all classes {mean.max():.2f} at {px[mean.argmax()]:.3f}"
    axes.plot(px, mean, linewidth=3, color="blue", label=best)
    _finish(figure, axes, path, xlabel, ylabel, f"{ylabel}-{xlabel} Curve")


def plot_confusion_matrix(
    matrix: np.ndarray, path: Path, names: Sequence[str] = (), normalize: bool = True
) -> None:
    """Plot a confusion matrix (nc + 1, nc + 1): rows predicted, columns true, the last is background.

    With as many names as rows, as of a classifier, there is no background. With `normalize` each column sums
    to one. Cells below 0.005 are left empty.
    """
    background = len(names) != len(matrix)
    nc = len(matrix) - background
    shown = matrix / (matrix.sum(0, keepdims=True) + 1e-9) if normalize else matrix.astype(float)
    shown = np.where(shown < 0.005, np.nan, shown)
    figure = new_figure(12, 9)
    axes = figure.add_subplot()
    highest = 1.0 if normalize else max(float(np.nanmax(shown)), 1.0) if np.isfinite(shown).any() else 1.0
    edges = np.arange(len(shown) + 1) - 0.5
    image = axes.pcolormesh(edges, edges, shown, cmap="Blues", vmin=0, vmax=highest)  # faster than imshow
    axes.invert_yaxis()
    figure.colorbar(image, ax=axes, fraction=0.046, pad=0.02).outline.set_visible(False)
    if nc <= NUMBERS_UP_TO:
        _write_cells(axes, shown, highest, "{:.2f}" if normalize else "{:.0f}")
    if len(names) == nc and nc <= TICKS_UP_TO:
        ticks, size = [*map(str, names)], max(3.0, min(10.0, 300 / (nc + 1)))
        ticks += ["background"] if background else []
        axes.set_xticks(range(len(ticks)), ticks, rotation=90, fontsize=size)
        axes.set_yticks(range(len(ticks)), ticks, fontsize=size)
        disable_mathtext([*axes.get_xticklabels(), *axes.get_yticklabels()])
    if background:
        axes.axhline(nc - 0.5, color="0.6", linewidth=0.8)
        axes.axvline(nc - 0.5, color="0.6", linewidth=0.8)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("True")
    axes.set_ylabel("Predicted")
    axes.set_title("Confusion Matrix")
    save_figure(figure, path, DPI)


def _write_cells(axes: Axes, shown: np.ndarray, highest: float, layout: str) -> None:
    size = max(4.0, min(12.0, 130 / len(shown)))
    for row, column in np.argwhere(np.isfinite(shown)):
        value = shown[row, column]
        ink = "white" if value > 0.55 * highest else "0.15"
        axes.text(column, row, layout.format(value), ha="center", va="center", fontsize=size, color=ink)


def _curves(px: np.ndarray, py: np.ndarray, labels: Sequence[str]) -> tuple[Figure, Axes]:
    """Return a figure with a line per class: coloured, with a label, if there are few, else grey."""
    figure = new_figure(9, 6)
    axes = figure.add_subplot()
    few = 0 < len(labels) == len(py) <= LEGEND_UP_TO
    for index, row in enumerate(py):
        if few:
            color = tuple(channel / 255 for channel in colors_on_white(index))
            label = labels[index]
            # matplotlib omits labels that start with an underscore from the legend
            axes.plot(px, row, linewidth=1, color=color, label=f" {label}" if label[:1] == "_" else label)
        else:
            axes.plot(px, row, linewidth=1, color="0.75")
    return figure, axes


def _finish(figure: Figure, axes: Axes, path: Path, xlabel: str, ylabel: str, title: str) -> None:
    axes.set(xlabel=xlabel, ylabel=ylabel, title=title, xlim=(0, 1), ylim=(0, 1))
    axes.grid(alpha=0.25)
    legend = axes.legend(bbox_to_anchor=(1.02, 1), loc="upper left", borderaxespad=0, fontsize="small")
    disable_mathtext(legend.get_texts())
    save_figure(figure, path, DPI)


def _mean(py: np.ndarray, length: int) -> np.ndarray:
    return py.mean(0) if len(py) else np.zeros(length)
