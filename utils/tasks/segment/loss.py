"""The segmentation loss: the detection loss, and the binary cross entropy of masks inside their boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from utils.ops.boxes import xywh2xyxy
from utils.ops.loss import AnchorMatches, DetectionLoss, SumCounts
from utils.tasks.segment.masks import inside_boxes

EmptyMasks = Literal["skip", "train"]
BLOCK = 64  # matches whose masks are computed at a time


class SegmentationLoss(DetectionLoss):
    """Loss of `Segment`: as `DetectionLoss`, with a mask term that has the gain of the boxes.

    Its memory does not grow with the number of objects: masks are computed in blocks, together with their
    gradients.

    Args:
        args: as `DetectionLoss`.
        overlap: the true masks of an image are one map; else there is one mask for each target.
        empty_masks: objects without a pixel in the true masks have no mask loss ("skip"), or are trained to
            have no mask ("train", as in the original).
        options: as `DetectionLoss`.
    """

    def __init__(
        self, *args: Any, overlap: bool = True, empty_masks: EmptyMasks = "skip", **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self.overlap = overlap
        self.empty_masks = empty_masks

    def __call__(  # type: ignore[override]
        self,
        output: tuple[Sequence[Tensor], Tensor],
        targets: Tensor,
        masks: Tensor,
        sum_counts: SumCounts | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute the loss of a batch.

        Args:
            output: levels x (B, A, h, w, 5 + nc + nm) logits, and (B, nm, H, W) prototypes.
            targets: (T, 6) image index, class, xywh as fractions of the image.
            masks: with `overlap` (B, h, w) integers: the i-th target of an image owns the value i, from 1;
                else (T, h, w) of 0 and 1. Another size than that of the prototypes is resized to it.
            sum_counts: as `DetectionLoss`.

        Returns:
            The loss times B; and its items (4,): box, mask, objectness, class.
        """
        maps, protos = output
        matches = self.assign(maps, targets)
        moved = [found.to(protos.device) for found in matches]
        with torch.autocast(protos.device.type, enabled=False):
            (box, objectness, cls), images = self.weighted_terms(maps, moved, sum_counts)
            truth = _TrueMasks(targets, masks, protos, self.overlap)
            coefficients = torch.cat(self._coefficients(maps, moved))
            seg = self._mask_loss(coefficients, matches, protos.float(), truth) * (self.box_gain / images)
            items = torch.stack((box, seg, objectness, cls))
        return items.sum() * images, items.detach()

    def _coefficients(self, maps: Sequence[Tensor], matches: Sequence[AnchorMatches]) -> list[Tensor]:
        """Return the mask coefficients of the matches of each level, (n, nm)."""
        first = 5 + self.nc
        return [
            level[found.image_index, found.anchor_index, found.row, found.column, first:].float()
            for level, found in zip(maps, matches, strict=True)
        ]

    def _mask_loss(
        self, coefficients: Tensor, matches: Sequence[AnchorMatches], protos: Tensor, truth: _TrueMasks
    ) -> Tensor:
        """Compute the sum over levels and images of the mean mask loss of their matches.

        Everything but coefficients and prototypes is where the targets are: numbers of matches that are
        computed on a GPU would make it synchronize.
        """
        image = torch.cat([found.image_index for found in matches])
        target = torch.cat([found.target_index for found in matches])
        level = torch.cat([image.new_full((len(found.row),), index) for index, found in enumerate(matches)])
        kept = torch.arange(len(image), device=image.device)
        if self.empty_masks == "skip":
            kept = truth.has_pixels()[target].nonzero()[:, 0]
            image, target, level = (x[kept] for x in (image, target, level))
        group = level * len(protos) + image
        size = group.bincount(minlength=len(matches) * len(protos))[group]
        boxes = truth.boxes[target]
        area = (boxes[:, 2:] - boxes[:, :2]).prod(1)  # in pixels: a mean over all pixels by the relative area
        weight = 1 / (size * area)
        total = protos[:0].sum()  # 0, with a gradient of zeros where no target has a match
        counts = image.bincount(minlength=len(protos)).tolist()
        order = image.argsort(stable=True)
        rows = coefficients[kept[order].to(protos.device, non_blocking=True)].split(counts)
        # `unbind` has one gradient for the batch; that of each `protos[index]` would be as large as all.
        for chosen, own, protos_of in zip(order.split(counts), rows, protos.unbind(), strict=True):
            if len(chosen):
                wanted = _Wanted(target[chosen], boxes[chosen], weight[chosen])
                total = total + _MaskTerm.apply(own, protos_of, wanted, truth)
        return total


class _Wanted(NamedTuple):
    """The true masks of k matches of one image."""

    target: Tensor  # (k,) row of the targets
    boxes: Tensor  # (k, 4) xyxy in pixels of the prototypes
    weight: Tensor  # (k,) of the sum over pixels


class _TrueMasks:
    """The true masks of a batch, at the size of the prototypes and on their device.

    Images, numbers and boxes of the targets are on the device of `targets`.
    """

    def __init__(self, targets: Tensor, masks: Tensor, protos: Tensor, overlap: bool) -> None:
        height, width = protos.shape[2:]
        if masks.shape[1:] != protos.shape[2:] and len(masks):
            resized = functional.interpolate(masks[None].float(), (height, width), mode="nearest")[0]
            masks = resized.to(masks.dtype)
        self.given = masks  # where they were
        self.masks = masks.to(protos.device, non_blocking=True)
        self.overlap = overlap
        self.image = targets[:, 0].long()
        self.number = _number_in_group(self.image) + 1
        self.boxes = xywh2xyxy(targets[:, 2:6].float() * targets.new_tensor((width, height)).repeat(2))

    def has_pixels(self) -> Tensor:
        """Return whether each target has a pixel, (T,) bool."""
        masks = self.given
        if not self.overlap:
            return masks.flatten(1).any(1).to(self.image.device)
        most = int(self.number.max()) + 1 if len(self.number) else 1
        first = torch.arange(len(masks), device=masks.device) * (most + 1)
        flat = masks.long().clamp(max=most) + first[:, None, None]
        counts = flat.flatten().bincount(minlength=len(masks) * (most + 1)).to(self.image.device)
        return counts[self.image * (most + 1) + self.number] > 0

    def owners(self, target: Tensor) -> Tensor:
        """Return the numbers by which `part` finds targets (k,) of one image, on the device of the masks."""
        own = self.number[target] if self.overlap else target
        return own.to(self.masks.device, non_blocking=True)

    def part(self, image: int, owners: Tensor, rows: slice, columns: slice) -> Tensor:
        """Return a part of the masks of targets of one image, (k, h, w) bool."""
        if not self.overlap:
            return self.masks[owners, rows, columns] > 0
        return self.masks[image, rows, columns][None] == owners[:, None, None]


class _MaskTerm(torch.autograd.Function):
    """Weighted sum of the cross entropies inside the boxes; computes its gradients in the forward pass."""

    @staticmethod
    def forward(ctx: Any, coefficients: Tensor, protos: Tensor, wanted: _Wanted, truth: _TrueMasks) -> Tensor:
        order, blocks = _blocks(wanted.boxes, protos.shape[1:])
        image, owners = int(truth.image[wanted.target[0]]), truth.owners(wanted.target[order])
        boxes, weights = (
            x[order].to(protos.device, non_blocking=True) for x in (wanted.boxes, wanted.weight[:, None])
        )
        order = order.to(protos.device, non_blocking=True)
        total, sorted_coefficients = protos.new_zeros(()), coefficients[order]
        grad_sorted, grad_protos = torch.zeros_like(coefficients), torch.zeros_like(protos)
        for chosen, rows, columns in blocks:
            part = protos[:, rows, columns]
            flat, own = part.flatten(1), sorted_coefficients[chosen]
            inside = inside_boxes(boxes[chosen], part.shape[1:], (rows.start, columns.start)).flatten(1)
            true = truth.part(image, owners[chosen], rows, columns).flatten(1).to(flat.dtype)
            weight = inside * weights[chosen]
            logits = own @ flat
            entropy = functional.binary_cross_entropy_with_logits(logits, true, reduction="none")
            total += (entropy * weight).sum()
            gradient = (logits.sigmoid() - true) * weight
            grad_sorted[chosen] = gradient @ flat.T
            grad_protos[:, rows, columns] += (own.T @ gradient).view_as(part)
        ctx.save_for_backward(torch.empty_like(grad_sorted).index_copy_(0, order, grad_sorted), grad_protos)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        grad_coefficients, grad_protos = ctx.saved_tensors
        return grad_coefficients * gradient, grad_protos * gradient, None, None


def _blocks(boxes: Tensor, size: Sequence[int]) -> tuple[Tensor, list[tuple[slice, slice, slice]]]:
    """Return an order (k,) of boxes (k, 4) from top to bottom, and blocks of it with the pixels they cover.

    A block is a slice of the order, of the rows and of the columns; blocks without a pixel are left out.
    """
    height, width = size
    order = boxes[:, 1].argsort(stable=True)  # matches of one object are neighbours
    parts = order.split(BLOCK)
    corners = torch.stack([_union(boxes[part]) for part in parts]).tolist()  # once for all blocks
    blocks = []
    for index, (left, top, right, bottom) in enumerate(corners):
        rows = slice(min(max(int(top), 0), height), min(max(int(bottom) + 1, 0), height))
        columns = slice(min(max(int(left), 0), width), min(max(int(right) + 1, 0), width))
        if rows.start < rows.stop and columns.start < columns.stop:
            blocks.append((slice(index * BLOCK, (index + 1) * BLOCK), rows, columns))
    return order, blocks


def _union(boxes: Tensor) -> Tensor:
    return torch.cat((boxes[:, :2].amin(0), boxes[:, 2:].amax(0)))


def _number_in_group(group: Tensor) -> Tensor:
    """Return how many earlier elements of `group` (T,) have the same value, (T,)."""
    order = group.argsort(stable=True)
    starts = group[order].bincount().cumsum(0) if len(group) else group
    first = starts - group.bincount() if len(group) else group
    number = torch.empty_like(group)
    number[order] = torch.arange(len(group), device=group.device) - first[group[order]]
    return number
