"""Which detections are correct, and the confusion matrix, as in the original."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from utils.ops.boxes import box_iou

MatchRule = Literal["legacy", "coco"]


def match_predictions(detections: Tensor, labels: Tensor, iouv: Tensor, rule: MatchRule = "legacy") -> Tensor:
    """Match the detections of an image to its labels, for each IoU threshold.

    Args:
        detections: (n, 6) xyxy, confidence, class; best first.
        labels: (m, 5) class, xyxy, in the same pixels.
        iouv: (k,) IoU thresholds, ascending.
        rule: assignment where several detections overlap a label. "legacy": each detection can match only
            the label with the highest IoU, and a label matches its most confident candidate. "coco": in
            the order of confidence, each detection matches the label with the highest IoU that is free.

    Returns:
        Whether each detection is correct, (n, k) bool, on the device of `detections`.
    """
    overlap = box_iou(detections[:, :4], labels[:, 1:5])
    return match_overlaps(overlap, detections[:, 5], labels[:, 0], iouv, rule)


def match_overlaps(
    overlap: Tensor, found: Tensor, true: Tensor, iouv: Tensor, rule: MatchRule = "legacy"
) -> Tensor:
    """Match as `match_predictions` by IoUs (n, m), of boxes or masks of classes `found` (n,), `true` (m,)."""
    iouv = iouv.to(overlap.device)
    if not overlap.numel():
        return torch.zeros(len(found), len(iouv), dtype=torch.bool, device=overlap.device)
    overlap = overlap * (found[:, None] == true)
    return (_match_legacy if rule == "legacy" else _match_coco)(overlap, iouv)


def _match_legacy(overlap: Tensor, iouv: Tensor) -> Tensor:
    best, label = overlap.max(1)
    candidate = best[:, None] >= iouv
    position = torch.arange(len(best), device=best.device)[:, None].expand_as(candidate)
    label = label[:, None].expand_as(candidate)
    # The first candidate of each label and IoU level; n, which is no position, where there is none.
    first = position.new_full((overlap.shape[1], len(iouv)), len(best))
    first.scatter_reduce_(0, label, position.masked_fill(~candidate, len(best)), "amin")
    return candidate & (first.gather(0, label) == position)


def _match_coco(overlap: Tensor, iouv: Tensor) -> Tensor:
    choices = (overlap >= iouv[0]).sum(1)
    if not len(choices) or choices.max() < 2:  # no detection has a second choice
        return _match_legacy(overlap, iouv)
    pairs, needed = overlap.cpu().numpy(), iouv.cpu().numpy()  # numpy is faster on small arrays
    free = np.ones((len(needed), pairs.shape[1]), bool)
    correct = np.zeros((len(pairs), len(needed)), bool)
    levels = np.arange(len(needed))
    for detection in choices.nonzero()[:, 0].tolist():
        left = pairs[detection] * free
        label = left.argmax(1)  # for each IoU level
        correct[detection] = left[levels, label] >= needed
        free[levels, label] &= ~correct[detection]
    return torch.from_numpy(correct).to(overlap.device)


class ConfusionMatrix:
    """Confusion matrix of detections and labels.

    `matrix` (nc + 1, nc + 1) has a row for each predicted class and a column for each true class. The last
    row and column are the background: the row counts missed labels, the column false positives.

    Args:
        nc: number of classes.
        conf: confidence threshold of detections.
        iou_thres: IoU above which a detection is paired with a label, whatever their classes.
        legacy: as in the original, count false positives only in images that have a pair.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou_thres: float = 0.45, legacy: bool = False) -> None:
        self.nc = nc
        self.conf = conf
        self.iou_thres = iou_thres
        self.legacy = legacy
        self.matrix = np.zeros((nc + 1, nc + 1))

    def process_batch(self, detections: Tensor | None, labels: Tensor) -> None:
        """Add one image.

        Args:
            detections: (n, 6) xyxy, confidence, class; None if there are none.
            labels: (m, 5) class, xyxy; or (m,) classes if there are no detections.
        """
        true = labels[..., 0] if labels.ndim == 2 else labels
        true_classes = true.cpu().numpy().astype(int)
        if detections is None:
            self._count(self.nc, true_classes)
            return
        detections = detections[detections[:, 4] > self.conf]
        found_classes = detections[:, 5].cpu().numpy().astype(int)
        overlap = box_iou(detections[:, :4], labels[:, 1:5]).cpu().numpy()
        found, label = _pairs(overlap, self.iou_thres)
        self._count(found_classes[found], true_classes[label])
        self._count(self.nc, np.delete(true_classes, label))
        if len(found) or not self.legacy:
            self._count(np.delete(found_classes, found), self.nc)

    def tp_fp(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the true and false positives of each class, (nc,) each."""
        correct = self.matrix.diagonal()
        return correct[: self.nc].copy(), (self.matrix.sum(1) - correct)[: self.nc]

    def _count(self, predicted: np.ndarray | int, true: np.ndarray | int) -> None:
        """Add one to each cell (predicted, true); cells may repeat."""
        cells = np.broadcast_arrays(predicted, true)
        np.add.at(self.matrix, (cells[0], cells[1]), 1)


def _pairs(overlap: np.ndarray, iou_thres: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair detections with labels by their IoU (n, m); return the indices of both.

    The candidate of a detection is the label with the highest IoU. A label is paired with the detection that
    has the highest IoU among those it is the candidate of. Among equals the last one is chosen.
    """
    if overlap.size == 0:
        return np.zeros(0, int), np.zeros(0, int)
    candidate = overlap.shape[1] - 1 - overlap[:, ::-1].argmax(1)
    best = overlap.max(1)
    detections = np.flatnonzero(best > iou_thres)
    best_first = detections[np.lexsort((detections, best[detections]))[::-1]]
    label, first = np.unique(candidate[best_first], return_index=True)
    return best_first[first], label
