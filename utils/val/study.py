"""Measure accuracy and speed over a range of image sizes (`--task study`), as tables and a plot."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.base.log import LOG
from utils.base.names import unique_stems
from utils.plots.figure import new_figure, save_figure
from utils.tasks.task import Task
from utils.val.accumulator import EvalResult

SIZES = tuple(range(256, 1537, 128))
# Axes of the plot, as in the original; they are extended to show all points.
_AXIS_MS = 57
_AXIS_MAP = (25, 55)


def study(
    measure: Callable[[str, int], EvalResult], weights: Sequence[str], data_stem: str, folder: Path
) -> None:
    """Call `measure(weights, size)` for all sizes; write study_*.txt, study.zip and study.png.

    A text file has a row per size: P, R, mAP50, mAP50-95 of boxes, then of masks if the models have them, the
    losses (0), and the milliseconds per image of pre-process, inference and NMS.
    """
    points: dict[str, np.ndarray] = {}
    files: list[Path] = []
    for file, stem in zip(weights, unique_stems([Path(file) for file in weights]), strict=True):
        rows, line = [], []
        for size in SIZES:
            LOG.info(f"study: {file} at {size} pixels")
            result = measure(file, size)
            rows.append((*result.results, *result.speeds))
            line.append((result.speeds[1], result.metrics[-1]))  # of masks, if there are any
        files.append(folder / f"study_{data_stem}_{stem}.txt")
        np.savetxt(files[-1], np.array(rows), fmt="%10.4g")
        points[stem] = np.array(line)
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for table in files:
            archive.write(table, table.name)
    kind = "mask " if len(result.metrics) > len(Task.metrics) else ""
    plot_study(points, folder / "study.png", f"{kind}mAP50-95")
    LOG.info(f"study: {len(files)} tables and study.png in {folder}")


def plot_study(models: Mapping[str, np.ndarray], path: Path, metric: str = "mAP50-95") -> None:
    """Plot a metric over inference time, a line for each model: (sizes, 2) milliseconds and metric, 0-1."""
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    for name, points in models.items():
        axes.plot(points[:, 0], points[:, 1] * 100, ".-", linewidth=2, markersize=8, label=name)
    times, scores = np.concatenate(list(models.values())).T
    axes.set(
        xlabel="inference (ms per image)",
        ylabel=f"{metric} (%)",
        xlim=(0, max(_AXIS_MS, times.max() * 1.05)),
        ylim=(min(_AXIS_MAP[0], scores.min() * 100 - 1), max(_AXIS_MAP[1], scores.max() * 100 + 1)),
    )
    axes.grid(alpha=0.2)
    axes.legend(loc="lower right")
    save_figure(figure, path, dpi=300)
