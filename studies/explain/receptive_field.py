"""Effective receptive fields (Luo et al., arXiv:1701.04128): measurement, table and figure."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from studies.explain.layers import Network, describe_layer, run_and_keep
from utils.base.errors import DataError
from utils.base.paths import atomic_write
from utils.plots.figure import disable_mathtext, new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage


SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Extent:
    """Size of the region that holds a share of the energy.

    Attributes:
        share: of the energy, 0-1.
        side: of the smallest square around the centre that holds the share, in pixels; odd. It measures the
            reach of the field. The square may extend beyond the image.
        square: pixels of the image in that square.
        area: pixels in the smallest set that holds the share, at any position: the brightest ones. It
            measures how many pixels contribute; at most `square`.
    """

    share: float
    side: int
    square: int
    area: int


@dataclass(frozen=True)
class Field:
    """An effective receptive field and its size.

    Attributes:
        energy: (H, W) float64, sums to one.
        centre: (row, column), the median of the energy along each axis. The position of the cell is not
            used, because padding of strided convolutions shifts fields by some pixels.
        extents: one for each of `SHARES`.
    """

    energy: np.ndarray
    centre: tuple[int, int]
    extents: tuple[Extent, ...]


def field_energy(model: Network, images: Tensor, layers: Sequence[int]) -> dict[int, np.ndarray]:
    """Return the energy of one image (1, 3, H, W) by layer, for its centre cell: (H, W) float64."""
    images = images.detach().requires_grad_()
    kept, _ = run_and_keep(model, images, layers)
    gradients = {index: centre_gradient(kept[index], images) for index in layers}
    for index, energy in gradients.items():
        if not np.isfinite(energy).all() or not energy.any():
            raise DataError(f"{describe_layer(model, index)}: its gradient is zero or not finite")
    return gradients


def centre_gradient(maps: Tensor, images: Tensor) -> np.ndarray:
    """Return how each pixel affects the centre cell: |d (sum over channels) / d pixel|, summed over colours.

    Args:
        maps: (1, C, h, w), computed from `images`; the cell is (h // 2, w // 2).
        images: (1, 3, H, W) with requires_grad.

    Returns:
        (H, W) float64.
    """
    height, width = maps.shape[2:]
    cell = maps[0, :, height // 2, width // 2].sum()
    (gradient,) = torch.autograd.grad(cell, images, retain_graph=True)
    return gradient[0].abs().sum(0).cpu().numpy().astype(np.float64)


def measure(energy: np.ndarray, shares: Sequence[float] = SHARES) -> Field:
    """Measure a field (H, W) of non-negative energies with a positive sum."""
    energy = energy / energy.sum()
    row, column = (_median(energy.sum(axis)) for axis in (1, 0))
    held = energy_by_reach(energy, (row, column))
    pixels = np.bincount(_reach(energy.shape, (row, column)).ravel()).cumsum()
    brightest = np.sort(energy, axis=None)[::-1].cumsum()
    extents = []
    for share in shares:
        reach = _first(held, share)
        extents.append(Extent(share, 2 * reach + 1, int(pixels[reach]), _first(brightest, share) + 1))
    return Field(energy, (row, column), tuple(extents))


def energy_by_reach(energy: np.ndarray, centre: tuple[int, int]) -> np.ndarray:
    """Return the energy in the square of side 2 r + 1 around the centre, for r = 0, 1, ...: (n,), rising."""
    return np.bincount(_reach(energy.shape, centre).ravel(), weights=energy.ravel()).cumsum()


def _reach(shape: tuple[int, ...], centre: tuple[int, int]) -> np.ndarray:
    """Return the Chebyshev distance of each pixel to the centre: (H, W)."""
    rows, columns = (abs(np.arange(n) - centre_n) for n, centre_n in zip(shape, centre, strict=True))
    return np.maximum(rows[:, None], columns[None])


def _median(energies: np.ndarray) -> int:
    return _first(energies.cumsum(), 0.5)


def _first(rising: np.ndarray, share: float) -> int:
    """Return the index of the first value that reaches a share of the last, up to rounding errors."""
    return int(np.searchsorted(rising, share * rising[-1] * (1 - 1e-12)))


COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe and Ito
LINES = ("-", "--", ":")  # of the squares that hold 50, 90 and 99 %
DARKEST = 1e-4  # of the peak; smaller values are black
_MAX_COLUMNS = 3
_SIDE = 4.4  # inches of a panel
_DPI = 130


@dataclass(frozen=True)
class FieldRow:
    """The field of one layer of one model."""

    model: str
    layer: str
    stride: int
    field: Field


def draw_fields(models: Sequence[Sequence[FieldRow]], images: int, path: Path) -> None:
    """Draw all fields, and curves of the energy in squares of increasing side.

    With one layer, models and curves are side by side. With several, there is a row for each model and a
    column for each layer, with the curves below. All maps share one logarithmic scale.

    Args:
        models: rows of each model, one for each layer, in the same order.
        images: number of images that were averaged.
        path: image to write.
    """
    layers = max(map(len, models))
    one = layers == 1
    columns = min(len(models) + 1, _MAX_COLUMNS) if one else layers
    lines = -(-(len(models) + 1) // columns) if one else len(models) + 1
    figure = new_figure(_SIDE * columns + 0.8, _SIDE * lines + 0.4)
    grid = figure.subplots(lines, columns, squeeze=False)
    panels = [grid[divmod(i, columns)] for i in range(len(models))] if one else list(grid[:-1].flat)
    fields = [row for rows in models for row in [*rows, *[None] * (layers - len(rows))]]
    shown = [_draw_field(axes, row) for axes, row in zip(panels, fields, strict=True) if row]
    below = [grid[divmod(len(models), columns)]] if one else list(grid[-1])
    for index, axes in enumerate(below):
        _draw_curves(axes, [rows[index] for rows in models if index < len(rows)])
    for axes in grid.flat:
        axes.set_visible(axes.has_data())
    bar = figure.colorbar(shown[0], ax=panels, fraction=0.03, pad=0.02, shrink=0.8, extend="min")
    bar.set_label("energy, as a fraction of the map's peak")
    count = f"{images} image{'s' if images > 1 else ''}"
    figure.suptitle(f"Effective receptive field of the centre cell, mean of {count}", fontsize=13)
    save_figure(figure, path, _DPI)


def _draw_field(axes: Axes, row: FieldRow) -> AxesImage:
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Rectangle

    energy = row.field.energy
    relative = np.maximum(energy / energy.max(), DARKEST / 10)
    shown = axes.imshow(relative, cmap="inferno", norm=LogNorm(DARKEST, 1), interpolation_stage="data")
    y, x = row.field.centre
    for extent, style in zip(row.field.extents, LINES, strict=True):
        half = extent.side / 2
        frame = Rectangle((x - half, y - half), extent.side, extent.side, fill=False, linestyle=style)
        frame.set(edgecolor="white", linewidth=1.3)
        axes.add_patch(frame)
    sides = ", ".join(f"{extent.share:.0%} {extent.side}" for extent in row.field.extents)
    words = f"{row.model}\n{row.layer}, stride {row.stride}\nsides: {sides} px"
    disable_mathtext([axes.set_title(words, fontsize=10)])
    axes.set(xlim=(-0.5, energy.shape[1] - 0.5), ylim=(energy.shape[0] - 0.5, -0.5))
    axes.tick_params(labelsize=8)
    return shown


def _draw_curves(axes: Axes, rows: Sequence[FieldRow]) -> None:
    """Draw the energy over the side of a centred square, a line for each model."""
    longest = 1
    for index, row in enumerate(rows):
        held = energy_by_reach(row.field.energy, row.field.centre)
        sides = 2 * np.arange(len(held)) + 1
        longest = max(longest, int(sides[-1]))
        colour = COLOURS[index % len(COLOURS)]
        width = max(4.2 - 0.9 * index, 1.2)  # later curves are thinner, so that equal ones stay visible
        axes.plot(sides, 100 * held, color=colour, label=f" {row.model}", linewidth=width)
    for extent, style in zip(rows[0].field.extents, LINES, strict=True):
        axes.axhline(100 * extent.share, color="0.5", linewidth=0.9, linestyle=style)
    axes.set(xlabel="side of the square, px", ylabel="energy in it, %", xlim=(0, longest), ylim=(0, 101))
    axes.set_title("energy in a square around the centre", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    disable_mathtext(axes.legend(fontsize=8, loc="lower right").get_texts())


def write_fields(models: Sequence[Sequence[FieldRow]], path: Path) -> None:
    """Write erf.csv: for each model and layer, sides and areas in pixels and as fractions of the image."""
    with atomic_write(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        shares = [f"{extent.share:.0%}"[:-1] for extent in models[0][0].field.extents]
        kinds = ("side", "square", "square_fraction", "area", "area_fraction")
        numbers = [f"{kind}_{share}" for share in shares for kind in kinds]
        writer.writerow(["model", "layer", "stride", "height", "width", "centre_y", "centre_x", *numbers])
        for row in (row for rows in models for row in rows):
            field = row.field
            info = [row.model, row.layer, row.stride, *field.energy.shape, *field.centre]
            for extent in field.extents:
                square, area = (f"{n / field.energy.size:.6f}" for n in (extent.square, extent.area))
                info += [extent.side, extent.square, square, extent.area, area]
            writer.writerow(info)


def field_table(models: Sequence[Sequence[FieldRow]]) -> str:
    """Return a plain text table: sides in pixels, areas in percent of the image."""
    rows = [row for rows in models for row in rows]
    head = ["model", "layer"]
    extents = rows[0].field.extents
    head += [f"side {extent.share:.0%}" for extent in extents] + [f"area {e.share:.0%}" for e in extents]
    cells = [head]
    for row in rows:
        sides = [f"{extent.side} px" for extent in row.field.extents]
        areas = [f"{100 * extent.area / row.field.energy.size:.2f} %" for extent in row.field.extents]
        cells.append([row.model, row.layer, *sides, *areas])
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if column < 2 else text.rjust(width)
            for column, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    )
