"""Plot the labels of a dataset: number per class, positions and sizes of boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from utils.base.names import class_names
from utils.plots.annotator import colors_on_white
from utils.plots.figure import disable_mathtext, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 200
DRAWN_BOXES = 1000
NAMED_CLASSES = 29  # the names of more classes would overlap


def plot_labels(
    labels: np.ndarray, names: Mapping[int, str] | Sequence[str], save_dir: Path
) -> tuple[Path, Path] | None:
    """Write labels.jpg and labels_correlogram.jpg.

    Args:
        labels: (n, 5) class, cx, cy, w, h as fractions of the image, of the whole dataset.
        names: names of the classes.
        save_dir: folder for the two images.

    Returns:
        The two files, or None if there are no labels.
    """
    if not len(labels):
        return None
    classes, xywh = labels[:, 0].astype(int), labels[:, 1:5].astype(float)
    overview, correlogram = save_dir / "labels.jpg", save_dir / "labels_correlogram.jpg"
    _plot_overview(classes, xywh, [name for _, name in sorted(class_names(names).items())], overview)
    _plot_correlogram(xywh, correlogram)
    return overview, correlogram


def _plot_overview(classes: np.ndarray, xywh: np.ndarray, names: list[str], path: Path) -> None:
    figure = new_figure(8, 8)
    (histogram, boxes), (positions, sizes) = figure.subplots(2, 2)
    counts = np.bincount(classes, minlength=len(names))
    shades = [tuple(channel / 255 for channel in colors_on_white(i)) for i in range(len(counts))]
    histogram.bar(range(len(counts)), counts, color=shades)
    histogram.set_ylabel("instances")
    if 0 < len(names) <= NAMED_CLASSES:
        histogram.set_xticks(range(len(names)), names, rotation=90, fontsize=10)
        disable_mathtext(histogram.get_xticklabels())
    else:
        histogram.set_xlabel("classes")
    boxes.imshow(_centred_boxes(classes[:DRAWN_BOXES], xywh[:DRAWN_BOXES, 2:]))
    boxes.axis("off")
    _histogram_2d(positions, xywh[:, 0], xywh[:, 1], bins=50)
    positions.set(xlabel="x", ylabel="y")
    _histogram_2d(sizes, xywh[:, 2], xywh[:, 3], bins=50)
    sizes.set(xlabel="width", ylabel="height")
    for axes in (histogram, positions, sizes):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, DPI)


def _centred_boxes(classes: np.ndarray, wh: np.ndarray, side: int = 1000) -> np.ndarray:
    """Draw boxes around a common centre, small ones on top, as (side, side, 3) RGB."""
    canvas = np.full((side, side, 3), 255, np.uint8)
    centre = side // 2
    for index in np.argsort(-wh.prod(1)):
        dx, dy = (round(float(fraction) * centre) for fraction in wh[index])
        corners = (centre - dx, centre - dy), (centre + dx, centre + dy)
        cv2.rectangle(canvas, *corners, colors_on_white(int(classes[index])), 1)
    return canvas


def _plot_correlogram(xywh: np.ndarray, path: Path) -> None:
    """Plot x, y, width and height against each other, with their distributions on the diagonal."""
    words = ("x", "y", "width", "height")
    figure = new_figure(9, 9)
    grid = figure.subplots(4, 4)
    for row in range(4):
        for column in range(4):
            axes = grid[row, column]
            if column > row:
                axes.axis("off")
            elif column == row:
                axes.hist(np.clip(xywh[:, row], 0, 1), bins=50, range=(0, 1), color="tab:blue")
                axes.set(xlim=(0, 1), yticks=[])
                axes.spines[["top", "right", "left"]].set_visible(False)
            else:
                _histogram_2d(axes, xywh[:, column], xywh[:, row], bins=50)
            axes.set_xlabel(words[column] if row == 3 else "")
            axes.set_ylabel(words[row] if column == 0 and row else "")
            axes.tick_params(labelbottom=row == 3, labelleft=column == 0 and row > 0)
    save_figure(figure, path, DPI)


def _histogram_2d(axes: Axes, x: np.ndarray, y: np.ndarray, bins: int) -> None:
    """Plot the density of points in the unit square; empty cells are white."""
    counts, _, _ = np.histogram2d(np.clip(x, 0, 1), np.clip(y, 0, 1), bins=bins, range=((0, 1), (0, 1)))
    # The square root keeps a few crowded cells from making all others pale.
    shown = np.where(counts > 0, np.sqrt(counts), np.nan).T
    axes.imshow(shown, origin="lower", extent=(0, 1, 0, 1), cmap="Blues", vmin=-0.3 * np.sqrt(counts.max()))
    axes.set(xlim=(0, 1), ylim=(0, 1))
