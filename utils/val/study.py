"""Measure accuracy and speed over a range of image sizes (`--task study`), as tables and a plot."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from utils.base.log import LOG
from utils.base.names import unique_stems
from utils.plots.figure import new_figure, save_figure
from utils.val.accumulator import EvalResult

SIZES = tuple(range(256, 1537, 128))
# Axes of the plot, as in the original; they are extended to show all points.
_AXIS_MS = 57
_AXIS_MAP = (25, 55)


def study(
    measure: Callable[[str, int], EvalResult], weights: Sequence[str], data_stem: str, folder: Path
) -> None:
    """Call `measure(weights, size)` for all sizes; write study_*.txt, study.zip and study.png.

    A text file has a row per size: P, R, mAP50, mAP50-95, three losses (0), and the milliseconds per image
    of pre-process, inference and NMS.
    """
    tables: dict[str, np.ndarray] = {}
    files: list[Path] = []
    for file, stem in zip(weights, unique_stems([Path(file) for file in weights]), strict=True):
        rows = []
        for size in SIZES:
            LOG.info(f"study: {file} at {size} pixels")
            result = measure(file, size)
            rows.append((*result.results, *result.speeds))
        files.append(folder / f"study_{data_stem}_{stem}.txt")
        tables[stem] = np.array(rows)
        np.savetxt(files[-1], tables[stem], fmt="%10.4g")
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for table in files:
            archive.write(table, table.name)
    plot_study(tables, folder / "study.png")
    LOG.info(f"study: {len(files)} tables and study.png in {folder}")


def plot_study(tables: Mapping[str, np.ndarray], path: Path) -> None:
    """Plot mAP50-95 over inference time, a line for each table (sizes, 10)."""
    figure = new_figure(8, 4)
    axes = figure.add_subplot()
    for name, rows in tables.items():
        axes.plot(rows[:, 8], rows[:, 3] * 100, ".-", linewidth=2, markersize=8, label=name)
    times = np.concatenate([rows[:, 8] for rows in tables.values()])
    scores = np.concatenate([rows[:, 3] * 100 for rows in tables.values()])
    axes.set(
        xlabel="inference (ms per image)",
        ylabel="mAP50-95 (%)",
        xlim=(0, max(_AXIS_MS, times.max() * 1.05)),
        ylim=(min(_AXIS_MAP[0], scores.min() - 1), max(_AXIS_MAP[1], scores.max() + 1)),
    )
    axes.grid(alpha=0.2)
    axes.legend(loc="lower right")
    save_figure(figure, path, dpi=300)
