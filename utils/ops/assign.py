"""Assign objects to predictions: anchors of similar size, in the cells around the object's centre.

On every level, an object is assigned to each anchor that fits its size, in up to three cells: the one that
holds its centre and the two nearest neighbours. Several objects may therefore share a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Offsets (x, y) from the centre to a point in its own cell and in the left, upper, right and lower neighbour.
_STEPS = ((0.0, 0.0), (-0.5, 0.0), (0.0, -0.5), (0.5, 0.0), (0.0, 0.5))


class AnchorMatches(NamedTuple):
    """The n matches of one level, a row for each combination of object, anchor and cell.

    `box` is the target of the prediction: the centre relative to the cell's corner, then the size, both in
    grid units.
    """

    image_index: Tensor  # (n,) int64, like the next four
    anchor_index: Tensor
    row: Tensor
    column: Tensor
    class_index: Tensor
    box: Tensor  # (n, 4) xywh
    anchors: Tensor  # (n, 2) width and height of the anchor, grid units

    def to(self, device: torch.device) -> AnchorMatches:
        """Move all fields to a device, without synchronizing with it."""
        return AnchorMatches(*(field.to(device, non_blocking=True) for field in self))


def assign_targets(
    targets: Tensor,
    anchors: Tensor,
    grid_sizes: Sequence[tuple[int, int]],
    anchor_t: float = 4.0,
) -> list[AnchorMatches]:
    """Assign objects to anchors and cells on every level.

    Args:
        targets: (T, 6) image index, class, xywh as fractions of the image.
        anchors: (levels, A, 2) in grid units, on the device of `targets`.
        grid_sizes: (rows, columns) of each level.
        anchor_t: largest ratio, in width or height, between an object and an anchor that fits it.

    Returns:
        AnchorMatches of each level, on the device of `targets`: the cells of the centres first, then their
        left, upper, right and lower neighbours; each group is sorted by anchor, then as `targets` are.
    """
    targets = targets.float()
    return [
        _assign_level(targets, level_anchors.float(), rows, columns, anchor_t)
        for level_anchors, (rows, columns) in zip(anchors, grid_sizes, strict=True)
    ]


def _assign_level(
    targets: Tensor, anchors: Tensor, rows: int, columns: int, anchor_t: float
) -> AnchorMatches:
    grid = targets.new_tensor((columns, rows))
    centres, sizes = targets[:, 2:4] * grid, targets[:, 4:6] * grid
    anchor_index, target_index = fits_anchor(sizes, anchors, anchor_t).nonzero(as_tuple=True)

    step_index, pair = neighbour_cells(centres[target_index], grid).nonzero(as_tuple=True)
    anchor_index, target_index = anchor_index[pair], target_index[pair]

    centre = centres[target_index]
    cell = (centre + targets.new_tensor(_STEPS)[step_index]).long()
    column, row = cell[:, 0].clamp(0, columns - 1), cell[:, 1].clamp(0, rows - 1)
    corner = torch.stack((column, row), 1)
    labels = targets[target_index, :2].long()
    return AnchorMatches(
        image_index=labels[:, 0],
        anchor_index=anchor_index,
        row=row,
        column=column,
        class_index=labels[:, 1],
        box=torch.cat((centre - corner, sizes[target_index]), 1),
        anchors=anchors[anchor_index],
    )


def fits_anchor(sizes: Tensor, anchors: Tensor, anchor_t: float) -> Tensor:
    """Return whether sizes (T, 2) fit anchors (A, 2): (A, T) bool, both ratios of sides below `anchor_t`."""
    ratio = sizes[None] / anchors[:, None]
    return ratio.maximum(1 / ratio).amax(2) < anchor_t


def neighbour_cells(centres: Tensor, grid: Tensor) -> Tensor:
    """Return the cells that centres (n, 2) are assigned to: (5, n) bool, in the order of `_STEPS`.

    A neighbour is one of them if it lies inside the grid, and the centre in the half cell next to it.
    """
    from_start, from_end = centres.T, (grid - centres).T  # (2, n): x, y
    near_start = (from_start % 1 < 0.5) & (from_start > 1)
    near_end = (from_end % 1 < 0.5) & (from_end > 1)
    return torch.cat((torch.ones_like(near_start[:1]), near_start, near_end))
