"""Precision, recall, average precision and the confusion matrix, computed as in the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from utils.ops.boxes import box_iou

MatchRule = Literal["legacy", "coco"]

_RECALLS = np.linspace(0, 1, 101)  # at which precision is averaged, as in COCO
_CONFIDENCES = np.linspace(0, 1, 1000)  # of the curves, and candidates for the operating point
_TINY = 1e-16  # keeps quotients of counts finite


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


@dataclass(frozen=True)
class APResult:
    """Metrics of the c classes that have labels, in ascending order.

    `tp`, `fp`, `p`, `r` and `f1` are those at the operating point: one confidence for all classes, at which
    their mean F1 is highest. As in the original, classes without labels are in no metric; `stray` counts
    their detections.
    """

    classes: np.ndarray  # (c,) int
    names: tuple[str, ...]  # of these classes
    tp: np.ndarray  # (c,) number of true positives
    fp: np.ndarray  # (c,) number of false positives
    p: np.ndarray  # (c,) precision
    r: np.ndarray  # (c,) recall
    f1: np.ndarray  # (c,)
    ap: np.ndarray  # (c, k), for each IoU threshold
    confidence: float  # of the operating point
    stray: int  # detections at the operating point whose class has no labels
    px: np.ndarray  # (1000,) confidences of the curves; recalls of `prec_values`
    p_curve: np.ndarray  # (c, 1000)
    r_curve: np.ndarray  # (c, 1000)
    f1_curve: np.ndarray  # (c, 1000)
    prec_values: np.ndarray  # (c, 1000) precision at recalls `px`, at the lowest IoU threshold


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    names: Mapping[int, str] | None = None,
) -> APResult:
    """Compute precision, recall and average precision from the matches of a dataset.

    Args:
        tp: (n, k) whether each detection is correct, for each IoU threshold.
        conf: (n,) confidence.
        pred_cls: (n,) class of each detection.
        target_cls: (m,) class of each label.
        names: names of classes; classes without one are named by their number.
    """
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, label_counts = np.unique(target_cls.astype(np.int64), return_counts=True)
    ap, p_curve, r_curve, prec_values = _class_curves(tp, conf, pred_cls, classes, label_counts)
    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + _TINY)
    point = int(smooth(f1_curve.mean(0), 0.1).argmax()) if len(classes) else 0
    p, r = p_curve[:, point], r_curve[:, point]
    correct = (r * label_counts).round()
    confidence = float(_CONFIDENCES[point])
    names = names or {}
    return APResult(
        classes=classes,
        names=tuple(names.get(int(cls), str(cls)) for cls in classes),
        tp=correct,
        fp=(correct / (p + _TINY) - correct).round(),
        p=p,
        r=r,
        f1=f1_curve[:, point],
        ap=ap,
        confidence=confidence,
        stray=int((~np.isin(pred_cls, classes) & (conf >= confidence)).sum()),
        px=_CONFIDENCES,
        p_curve=p_curve,
        r_curve=r_curve,
        f1_curve=f1_curve,
        prec_values=prec_values,
    )


def _class_curves(
    tp: np.ndarray, conf: np.ndarray, pred_cls: np.ndarray, classes: np.ndarray, label_counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the curves of the c `classes` from detections that are sorted by confidence.

    Returns:
        AP (c, k), precision and recall (c, 1000) over confidence, precision (c, 1000) over recall.
    """
    by_class = np.argsort(pred_cls, kind="stable")
    first, end = (np.searchsorted(pred_cls[by_class], classes, side) for side in ("left", "right"))
    ap = np.zeros((len(classes), tp.shape[1]))
    p_curve, r_curve, prec_values = np.zeros((3, len(classes), len(_CONFIDENCES)))
    for index, labels in enumerate(label_counts):
        chosen = by_class[first[index] : end[index]]
        if len(chosen):
            recall, precision = _recall_and_precision(tp[chosen], int(labels))
            ap[index], envelope, recalls = compute_ap(recall, precision)
            prec_values[index] = np.interp(_CONFIDENCES, recalls[:, 0], envelope[:, 0])
            ascending = -conf[chosen]  # np.interp needs ascending numbers
            r_curve[index] = np.interp(-_CONFIDENCES, ascending, recall[:, 0], left=0)
            p_curve[index] = np.interp(-_CONFIDENCES, ascending, precision[:, 0], left=1)
    return ap, p_curve, r_curve, prec_values


def _recall_and_precision(tp: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Compute recall and precision (n, k) of the first 1, 2, ..., n detections; `tp` is (n, k)."""
    correct = tp.cumsum(0, dtype=np.float64)
    detections = np.arange(1, len(tp) + 1)[:, None]
    return correct / (labels + _TINY), correct / detections


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute average precision: the area under the precision envelope, from 101 points.

    Args:
        recall: (n, k) ascending along n, a column for each IoU threshold; or (n,).
        precision: of the shape of `recall`.

    Returns:
        AP (k,), envelope (n + 2, k), its recalls (n + 2, k); without k if the input has none.
    """
    zero, one = np.zeros_like(recall[:1]), np.ones_like(recall[:1])
    recalls = np.concatenate((zero, recall, one))
    precisions = np.concatenate((one, precision, zero))
    envelope = np.maximum.accumulate(precisions[::-1])[::-1]
    columns = zip(recalls.reshape(len(recalls), -1).T, envelope.reshape(len(recalls), -1).T, strict=True)
    heights = np.stack([np.interp(_RECALLS, x, y) for x, y in columns])
    ap = ((heights[:, 1:] + heights[:, :-1]) / 2) @ np.diff(_RECALLS)
    return ap.reshape(recall.shape[1:]), envelope, recalls


def smooth(y: np.ndarray, f: float = 0.05) -> np.ndarray:
    """Smooth `y` (n,) with a box filter of f n values; the ends are padded with their own value.

    An even window gives n + 1 values, as in the original; for the 1000 points of a curve it is odd.
    """
    window = round(len(y) * f * 2) // 2 + 1
    return np.convolve(np.pad(y, window // 2, mode="edge"), np.full(window, 1 / window), mode="valid")


def fitness(map50: float, map50_95: float) -> float:
    """Return the weighted sum of mAP50 and mAP50-95 by which models and hyperparameters are ranked."""
    return 0.1 * map50 + 0.9 * map50_95


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
