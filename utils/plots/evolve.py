"""evolve.png: each hyperparameter of an evolution against what it gave."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.plots.figure import new_figure, save_figure

_COLUMNS = 5


def plot_evolution(genes: Mapping[str, Sequence[float]], fitness: Sequence[float], output: Path) -> None:
    """Draw a panel for each gene that has more than one value; later ones are darker, the best is marked.

    Args:
        genes: values of each hyperparameter, candidate by candidate.
        fitness: of the same candidates.
        output: the picture.
    """
    varied = {key: values for key, values in genes.items() if len(set(values)) > 1} or dict(genes)
    best = int(np.argmax(fitness))
    rows = math.ceil(len(varied) / _COLUMNS)
    figure = new_figure(3 * _COLUMNS, 2.6 * rows)
    panels = figure.subplots(rows, _COLUMNS, squeeze=False, sharey=True).ravel()
    order = np.arange(len(fitness))
    for axes, (key, values) in zip(panels, varied.items(), strict=False):
        axes.scatter(values, fitness, c=order, cmap="viridis_r", s=14, alpha=0.8, edgecolors="none")
        axes.plot(values[best], fitness[best], "+", color="crimson", markersize=14, markeredgewidth=2)
        axes.set_title(f"{key} = {values[best]:.3g}", fontsize=10)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(alpha=0.25)
    for axes in panels[len(varied) :]:
        axes.set_axis_off()
    for axes in panels[::_COLUMNS]:
        axes.set_ylabel("fitness")
    save_figure(figure, output, 150)
