"""The training loss: assignment of targets to anchors, then box (CIoU), objectness and class loss.

On every level, an object is assigned to each anchor that fits its size, in up to three cells: the one that
holds its centre and the two nearest neighbours. Several objects may therefore share a cell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.base.errors import ConfigError
from utils.ops.boxes import bbox_iou

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
    target_index: Tensor  # (n,) int64: row of the targets

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
        target_index=target_index,
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


HYP = {"cls_pw": 1.0, "obj_pw": 1.0, "anchor_t": 4.0, "fl_gamma": 0.0, "label_smoothing": 0.0}
FOCAL_ALPHA = 0.25  # weight of positives in the focal loss; negatives have 1 - alpha

# Weight of the objectness loss of each level: a fine level has many cells, and so a small mean.
_BALANCE_OF_THREE = (4.0, 1.0, 0.4)
_BALANCE = (4.0, 1.0, 0.25, 0.06, 0.02)

Duplicates = Literal["max", "last"]
SumCounts = Callable[[Sequence[int]], Sequence[int]]


class DetectionLoss:
    """Loss of raw predictions and labelled objects.

    It is computed in float32, under autocast too. Targets are assigned on their own device: pass them in
    CPU memory, as their varying number would make a GPU synchronize.

    Args:
        anchors: (levels, A, 2) in grid units.
        strides: stride of each level, in pixels.
        nc: number of classes; with a single class the class loss is 0.
        hyp: the gains box, obj and cls, and optionally the keys of `HYP`.
        autobalance: adapt the weights of the objectness losses of the levels during training.
        duplicates: objectness target of a cell with several objects: the greatest of their IoUs ("max"),
            or that of the last match ("last", as the original does on a CPU).
        iou_ratio: weight of the IoU in the objectness target, 1 - iou_ratio + iou_ratio * IoU.

    Raises:
        ConfigError: a gain is missing.
    """

    def __init__(
        self,
        anchors: Tensor,
        strides: Tensor | Sequence[float],
        nc: int,
        hyp: Mapping[str, Any],
        autobalance: bool = False,
        *,
        duplicates: Duplicates = "max",
        iou_ratio: float = 1.0,
    ) -> None:
        hyp = {**HYP, **hyp}
        missing = [key for key in ("box", "obj", "cls") if key not in hyp]
        if missing:
            raise ConfigError(f"hyperparameters: the loss needs {', '.join(missing)}")
        self.anchors = anchors.detach().float().cpu().clone()
        self.nc = nc
        self.box_gain, self.obj_gain, self.cls_gain = (float(hyp[key]) for key in ("box", "obj", "cls"))
        self.anchor_t = float(hyp["anchor_t"])
        self.positive, self.negative = smooth_labels(float(hyp["label_smoothing"]))
        self.obj_pw, self.cls_pw = float(hyp["obj_pw"]), float(hyp["cls_pw"])
        self.gamma = float(hyp["fl_gamma"])
        self.balance = list(_BALANCE_OF_THREE if len(anchors) == 3 else _BALANCE[: len(anchors)])
        self.autobalance = autobalance
        self.duplicates = duplicates
        self.iou_ratio = iou_ratio
        from_16 = [abs(float(stride) - 16) for stride in strides]
        self._reference_level = from_16.index(min(from_16))

    def __call__(
        self, maps: Sequence[Tensor], targets: Tensor, sum_counts: SumCounts | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            maps: levels x (B, A, h, w, 5 + nc), logits of any floating type.
            targets: (T, 6) image index, class, xywh as fractions of the image.
            sum_counts: sums counts over the processes that share the batch; None for a single process.

        Returns:
            The loss times B, a scalar; and its items (3,): box, objectness, class, detached, not times B.
            With `sum_counts`, the part of this process: the sum over the processes is the loss of the batch.
        """
        matches = [found.to(maps[0].device) for found in self.assign(maps, targets)]
        with torch.autocast(maps[0].device.type, enabled=False):
            terms, images = self.weighted_terms(maps, matches, sum_counts)
            items = torch.stack(terms)
        return items.sum() * images, items.detach()

    def assign(self, maps: Sequence[Tensor], targets: Tensor) -> list[AnchorMatches]:
        """Assign the targets of a batch; the matches of each level are on the device of `targets`."""
        grid_sizes = [(level.shape[2], level.shape[3]) for level in maps]
        anchors = self.anchors.to(targets.device, non_blocking=True)
        return assign_targets(targets, anchors, grid_sizes, self.anchor_t)

    def weighted_terms(
        self, maps: Sequence[Tensor], matches: Sequence[AnchorMatches], sum_counts: SumCounts | None
    ) -> tuple[tuple[Tensor, Tensor, Tensor], int]:
        """Return the box, objectness and class loss with their gains, and the images of the whole batch."""
        parts = [self._level(level, found) for level, found in zip(maps, matches, strict=True)]
        box, objectness, cls = (torch.stack(losses) for losses in zip(*parts, strict=True))
        images = len(maps[0])
        if sum_counts is not None:
            counts = [*(len(found.row) for found in matches), images]
            *totals, images = sum_counts(counts)
            weights = [own / max(total, 1) for own, total in zip(counts, totals, strict=False)]
            share = torch.tensor(weights, dtype=box.dtype).to(box.device, non_blocking=True)
            box, cls, objectness = box * share, cls * share, objectness * (counts[-1] / images)
        weighted = [loss * weight for loss, weight in zip(objectness, self.balance, strict=True)]
        if self.autobalance:
            self._rebalance(objectness.tolist())
        terms = (
            box.sum() * self.box_gain,
            torch.stack(weighted).sum() * self.obj_gain,
            cls.sum() * self.cls_gain,
        )
        return terms, images

    def refresh(self, model: Any) -> None:
        """Take the anchors of a model, which AutoAnchor may have changed."""
        self.anchors = model.head.anchors.detach().float().cpu().clone()

    def state_dict(self) -> dict[str, list[float]]:
        """Return the state that changes during training."""
        return {"balance": list(self.balance)}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Restore a `state_dict`."""
        self.balance = [float(weight) for weight in state["balance"]]

    def _level(self, level: Tensor, matches: AnchorMatches) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the box, objectness and class loss of one level, without gains."""
        logits = level[..., 4].float()
        target = logits.new_zeros(logits.shape)  # contiguous, whatever the memory format of the maps
        box = cls = logits.new_zeros(())
        if len(matches.row):
            chosen = level[matches.image_index, matches.anchor_index, matches.row, matches.column].float()
            iou = bbox_iou(_decode(chosen, matches.anchors), matches.box, kind="ciou")
            box = (1 - iou).mean()
            # Objectness learns the IoU; its loss must have no gradient to the boxes.
            self._write_objectness(target, matches, iou.detach().clamp(0))
            if self.nc > 1:
                logits_of_classes = chosen[:, 5 : 5 + self.nc]
                classes = torch.full_like(logits_of_classes, self.negative)
                classes.scatter_(1, matches.class_index[:, None], self.positive)
                cls = binary_loss(logits_of_classes, classes, self.cls_pw, self.gamma)
        return box, binary_loss(logits, target, self.obj_pw, self.gamma), cls

    def _write_objectness(self, target: Tensor, matches: AnchorMatches, iou: Tensor) -> None:
        """Set the objectness targets of matched cells in `target` (B, A, h, w); see `duplicates`."""
        _, anchors, rows, columns = target.shape
        cell = (matches.image_index * anchors + matches.anchor_index) * rows + matches.row
        cell = cell * columns + matches.column
        value = 1 - self.iou_ratio + self.iou_ratio * iou
        if self.duplicates == "last":
            order = torch.arange(len(cell), device=cell.device)
            winner = torch.zeros_like(target, dtype=torch.long).view(-1)
            value = value[winner.scatter_reduce_(0, cell, order, "amax")[cell]]
        target.view(-1).scatter_reduce_(0, cell, value, "amax")

    def _rebalance(self, objectness: Sequence[float]) -> None:
        """Move the weight of each level towards the inverse of its loss; that of stride 16 remains 1."""
        moved = [
            0.9999 * weight + 0.0001 / loss for weight, loss in zip(self.balance, objectness, strict=True)
        ]
        reference = moved[self._reference_level]
        self.balance = [weight / reference for weight in moved]


def smooth_labels(epsilon: float) -> tuple[float, float]:
    """Return the target probabilities of the true class and of all others (arXiv:1902.04103, eq. 3)."""
    return 1 - epsilon / 2, epsilon / 2


def binary_loss(logits: Tensor, target: Tensor, positive_weight: float = 1.0, gamma: float = 0.0) -> Tensor:
    """Compute the mean binary cross entropy, or the focal loss (Lin et al., arXiv:1708.02002).

    Args:
        logits: any shape.
        target: target probabilities, of the same shape.
        positive_weight: weight of the positive part.
        gamma: focusing parameter of the focal loss; 0 for plain cross entropy.
    """
    weight = None if positive_weight == 1 else logits.new_full((), positive_weight)
    if gamma <= 0:
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight)
    entropy = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
    probability = logits.sigmoid()
    alpha = target * FOCAL_ALPHA + (1 - target) * (1 - FOCAL_ALPHA)
    error = target * (1 - probability) + (1 - target) * probability
    error = error.clamp(min=1e-7)  # the power of zero has no gradient when gamma < 1
    return (entropy * alpha * error**gamma).mean()


def _decode(logits: Tensor, anchors: Tensor) -> Tensor:
    """Decode logits (n, 4+) to xywh in grid units, with centres relative to the cell's corner."""
    halves = logits[:, :4].sigmoid() * 2
    return torch.cat((halves[:, :2] - 0.5, halves[:, 2:] ** 2 * anchors), 1)
