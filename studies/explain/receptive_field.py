"""Effective receptive field: how much each pixel counts (Luo et al., arXiv:1701.04128)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.yolo import DetectionModel
from studies.explain.layers import describe_layer, run_and_keep
from utils.base.errors import DataError

SHARES = (0.5, 0.9, 0.99)


@dataclass(frozen=True)
class Extent:
    """How far one has to go for a share of the energy.

    Attributes:
        share: of the energy, 0-1.
        side: of the smallest square around the field's centre that holds the share, in pixels; odd.
            It says how far the layer looks. The square may reach beyond the picture's edge.
        square: pixels of the picture in that square.
        area: pixels in the smallest set that holds the share, wherever they lie: the brightest ones.
            It says how many pixels the layer listens to; at most `square`.
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
        centre: (row, column) of the pixel where half of the energy lies above, and half to the left. It is
            not taken from the cell's place: paddings of strided convolutions shift fields by some pixels.
        extents: one for each of `SHARES`.
    """

    energy: np.ndarray
    centre: tuple[int, int]
    extents: tuple[Extent, ...]


def field_energy(model: DetectionModel, images: Tensor, layers: Sequence[int]) -> dict[int, np.ndarray]:
    """Energy of one picture (1, 3, H, W) for the middle cell of each layer: {layer: (H, W) float64}."""
    images = images.detach().requires_grad_()
    kept, _ = run_and_keep(model, images, layers)
    found = {index: centre_gradient(kept[index], images) for index in layers}
    for index, energy in found.items():
        if not np.isfinite(energy).all() or not energy.any():
            raise DataError(f"{describe_layer(model, index)}: its gradient is zero or not finite")
    return found


def centre_gradient(maps: Tensor, images: Tensor) -> np.ndarray:
    """How much each pixel moves the middle cell: |d (sum over channels) / d pixel|, summed over colours.

    Args:
        maps: (1, C, h, w), computed from `images`; the cell is (h // 2, w // 2).
        images: (1, 3, H, W) that require a gradient.

    Returns:
        (H, W) float64.
    """
    height, width = maps.shape[2:]
    cell = maps[0, :, height // 2, width // 2].sum()
    (gradient,) = torch.autograd.grad(cell, images, retain_graph=True)
    return gradient[0].abs().sum(0).cpu().numpy().astype(np.float64)


def measure(energy: np.ndarray, shares: Sequence[float] = SHARES) -> Field:
    """Size of a field (H, W) of energies that are not negative, of any sum but zero."""
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
    """Energy in the square of side 2 r + 1 around the centre, for r = 0, 1, ...: (n,), rising."""
    return np.bincount(_reach(energy.shape, centre).ravel(), weights=energy.ravel()).cumsum()


def _reach(shape: tuple[int, ...], centre: tuple[int, int]) -> np.ndarray:
    """Steps from the centre to each pixel, where a diagonal step counts as one: (H, W)."""
    rows, columns = (abs(np.arange(n) - middle) for n, middle in zip(shape, centre, strict=True))
    return np.maximum(rows[:, None], columns[None])


def _median(energies: np.ndarray) -> int:
    return _first(energies.cumsum(), 0.5)


def _first(rising: np.ndarray, share: float) -> int:
    """Index of the first value that reaches a share of the last; rounding errors do not count."""
    return int(np.searchsorted(rising, share * rising[-1] * (1 - 1e-12)))
