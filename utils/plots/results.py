"""Plot csv tables: results.png of a training run, evolve.png of a hyperparameter evolution."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.base.errors import DataError
from utils.plots.figure import new_figure, save_figure

COLUMNS = (
    *("train/box_loss", "train/obj_loss", "train/cls_loss", "metrics/precision", "metrics/recall"),
    *("val/box_loss", "val/obj_loss", "val/cls_loss", "metrics/mAP_0.5", "metrics/mAP_0.5:0.95"),
)
MASK_COLUMNS = (
    *("train/box_loss", "train/seg_loss", "train/obj_loss", "train/cls_loss"),
    *("metrics/precision(B)", "metrics/recall(B)", "metrics/precision(M)", "metrics/recall(M)"),
    *("val/box_loss", "val/seg_loss", "val/obj_loss", "val/cls_loss"),
    *("metrics/mAP_0.5(B)", "metrics/mAP_0.5:0.95(B)", "metrics/mAP_0.5(M)", "metrics/mAP_0.5:0.95(M)"),
)
CLASS_COLUMNS = ("train/loss", "val/loss", "metrics/accuracy_top1", "metrics/accuracy_top5")
SIGMA = 3.0  # of the Gaussian filter, in epochs
_PANELS_PER_ROW = 5  # of evolve.png


def plot_results(file: Path, output: Path | None = None) -> Path:
    """Plot losses and metrics of a results.csv, raw and smoothed, as results.png beside it.

    Raises:
        DataError: the file does not exist, or has no rows or none of the columns.
    """
    table = read_results(file)
    epochs = table.get("epoch")
    if epochs is None or not any(name in table for name in (*COLUMNS, *MASK_COLUMNS, *CLASS_COLUMNS)):
        raise DataError(f"{file}: no column 'epoch', or none of {', '.join(COLUMNS[:3])}, ...")
    names: Sequence[str] = MASK_COLUMNS if "train/seg_loss" in table else COLUMNS
    names = CLASS_COLUMNS if "train/loss" in table else names
    columns = len(names) // 2
    figure = new_figure(2.4 * columns, 6)
    panels = figure.subplots(2, columns).ravel()
    for axes, name in zip(panels, names, strict=True):
        values = table.get(name, np.full(len(epochs), np.nan))
        known = np.isfinite(values)
        axes.plot(epochs[known], values[known], marker=".", linewidth=2, markersize=6, label="results")
        axes.plot(epochs[known], _smooth(values[known]), ":", linewidth=2, label="smooth")
        axes.set_title(name, fontsize=11)
        axes.grid(alpha=0.25)
        axes.xaxis.get_major_locator().set_params(integer=True)
    panels[1].legend()
    for axes in panels[columns:]:
        axes.set_xlabel("epoch")
    output = output or file.with_name("results.png")
    save_figure(figure, output, 200)
    return output


def read_results(file: Path) -> dict[str, np.ndarray]:
    """Read the columns of a results.csv by name; cells that are not numbers become NaN.

    Raises:
        DataError: the file cannot be read, or has no row below the header.
    """
    try:
        with file.open(newline="", encoding="utf-8") as text:
            rows = [[cell.strip() for cell in row] for row in csv.reader(text) if row]
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    if len(rows) < 2:
        raise DataError(f"{file}: no results yet")
    header, body = rows[0], rows[1:]
    return {
        name: np.array([_number(row[i]) if i < len(row) else math.nan for row in body])
        for i, name in enumerate(header)
    }


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _smooth(values: np.ndarray) -> np.ndarray:
    """Apply a Gaussian filter, with the curve mirrored at its ends."""
    radius = round(4 * SIGMA)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SIGMA) ** 2)
    if not len(values):
        return values
    padded = np.pad(values, radius, mode="symmetric")
    return np.convolve(padded, weights / weights.sum(), mode="valid")


def plot_evolution(genes: Mapping[str, Sequence[float]], fitness: Sequence[float], output: Path) -> None:
    """Plot the fitness over each gene that has more than one value; later candidates are darker.

    Args:
        genes: values of each hyperparameter, one per candidate.
        fitness: fitness of each candidate; the best one is marked.
        output: image to write.
    """
    varied = {key: values for key, values in genes.items() if len(set(values)) > 1} or dict(genes)
    best = int(np.argmax(fitness))
    rows = math.ceil(len(varied) / _PANELS_PER_ROW)
    figure = new_figure(3 * _PANELS_PER_ROW, 2.6 * rows)
    panels = figure.subplots(rows, _PANELS_PER_ROW, squeeze=False, sharey=True).ravel()
    order = np.arange(len(fitness))
    for axes, (key, values) in zip(panels, varied.items(), strict=False):
        axes.scatter(values, fitness, c=order, cmap="viridis_r", s=14, alpha=0.8, edgecolors="none")
        axes.plot(values[best], fitness[best], "+", color="crimson", markersize=14, markeredgewidth=2)
        axes.set_title(f"{key} = {values[best]:.3g}", fontsize=10)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.25)
    for axes in panels[len(varied) :]:
        axes.set_axis_off()
    for axes in panels[::_PANELS_PER_ROW]:
        axes.set_ylabel("fitness")
    save_figure(figure, output, 150)
