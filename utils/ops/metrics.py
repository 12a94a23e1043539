"""Precision, recall, average precision and the confusion matrix, counted as the original does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from utils.ops.iou import box_iou

MatchRule = Literal["legacy", "coco"]

_RECALLS = np.linspace(0, 1, 101)  # where precision is averaged, as COCO does
_CONFIDENCES = np.linspace(0, 1, 1000)  # where curves are drawn and the operating point is looked for
_TINY = 1e-16  # keeps quotients of counts finite


def match_predictions(detections: Tensor, labels: Tensor, iouv: Tensor, rule: MatchRule = "legacy") -> Tensor:
    """Decide which detections of an image are right, for each IoU that may be demanded.

    Args:
        detections: (n, 6) xyxy, confidence, class; best first.
        labels: (m, 5) class, xyxy, in the same pixels.
        iouv: (k,) least IoU of a match, rising.
        rule: who gets a label that several detections overlap. "legacy": each detection claims only the
            label it overlaps most, and the most confident claimant has it. "coco": the most confident
            detection takes the label it overlaps most, the next chooses among those left.

    Returns:
        (n, k) bool, on the device of `detections`.
    """
    iouv = iouv.to(detections.device)
    if len(detections) == 0 or len(labels) == 0:
        return torch.zeros(len(detections), len(iouv), dtype=torch.bool, device=detections.device)
    same_class = detections[:, 5:6] == labels[:, 0]
    overlap = box_iou(detections[:, :4], labels[:, 1:5]) * same_class
    return (_match_legacy if rule == "legacy" else _match_coco)(overlap, iouv)


def _match_legacy(overlap: Tensor, iouv: Tensor) -> Tensor:
    best, label = overlap.max(1)
    claims = best[:, None] >= iouv
    position = torch.arange(len(best), device=best.device)[:, None].expand_as(claims)
    label = label[:, None].expand_as(claims)
    # Of each label and IoU level the first claimant, or nobody: a number that is no position.
    first = position.new_full((overlap.shape[1], len(iouv)), len(best))
    first.scatter_reduce_(0, label, position.masked_fill(~claims, len(best)), "amin")
    return claims & (first.gather(0, label) == position)


def _match_coco(overlap: Tensor, iouv: Tensor) -> Tensor:
    choices = (overlap >= iouv[0]).sum(1)
    if not len(choices) or choices.max() < 2:  # nobody can choose another label when the best is taken
        return _match_legacy(overlap, iouv)
    pairs, needed = overlap.cpu().numpy(), iouv.cpu().numpy()  # small arrays, which torch is slow with
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
    """Figures of the c classes that have labels, in rising order.

    `tp`, `fp`, `p`, `r`, `f1` hold at one confidence for all classes: where their mean F1 is highest.
    Classes without labels are in no figure, as in the original; `stray` says how much that hides.
    """

    classes: np.ndarray  # (c,) int
    names: tuple[str, ...]  # of these classes
    tp: np.ndarray  # (c,) counts, as the next
    fp: np.ndarray
    p: np.ndarray  # (c,)
    r: np.ndarray
    f1: np.ndarray
    ap: np.ndarray  # (c, k), for each demanded IoU
    confidence: float  # the operating point
    stray: int  # detections there, of classes that no label has
    px: np.ndarray  # (1000,) confidences of the curves; recalls of `prec_values`
    p_curve: np.ndarray  # (c, 1000), as the next
    r_curve: np.ndarray
    f1_curve: np.ndarray
    prec_values: np.ndarray  # (c, 1000) precision at recalls `px`, at the lowest IoU


def ap_per_class(
    tp: np.ndarray,
    conf: np.ndarray,
    pred_cls: np.ndarray,
    target_cls: np.ndarray,
    names: Mapping[int, str] | None = None,
) -> APResult:
    """Turn the matches of a whole set into precision, recall and average precision.

    Args:
        tp: (n, k) whether each detection is right, for each demanded IoU.
        conf: (n,) confidence.
        pred_cls: (n,) class of each detection.
        target_cls: (m,) class of each label.
        names: names of classes; numbers stand in for those it lacks.
    """
    order = np.argsort(-conf, kind="stable")
    tp, conf, pred_cls = tp[order], conf[order], pred_cls[order]
    classes, label_counts = np.unique(target_cls.astype(np.int64), return_counts=True)
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
            falling = -conf[chosen]  # np.interp wants rising numbers
            r_curve[index] = np.interp(-_CONFIDENCES, falling, recall[:, 0], left=0)
            p_curve[index] = np.interp(-_CONFIDENCES, falling, precision[:, 0], left=1)

    f1_curve = 2 * p_curve * r_curve / (p_curve + r_curve + _TINY)
    point = int(smooth(f1_curve.mean(0), 0.1).argmax()) if len(classes) else 0
    p, r = p_curve[:, point], r_curve[:, point]
    found = (r * label_counts).round()
    confidence = float(_CONFIDENCES[point])
    names = names or {}
    return APResult(
        classes=classes,
        names=tuple(names.get(int(cls), str(cls)) for cls in classes),
        tp=found,
        fp=(found / (p + _TINY) - found).round(),
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


def _recall_and_precision(tp: np.ndarray, labels: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision (n, k) when one keeps the first 1, 2, ... n detections; `tp` (n, k)."""
    right = tp.cumsum(0, dtype=np.float64)
    kept = np.arange(1, len(tp) + 1)[:, None]
    return right / (labels + _TINY), right / kept


def compute_ap(recall: np.ndarray, precision: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Average precision: the area under the precision envelope, from 101 points of it.

    Args:
        recall: (n, k) rising along n, one column for each demanded IoU; or (n,).
        precision: as `recall`.

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
    """Average `y` (n,) over a window of f n values; the ends count on with their own value.

    An even window gives n + 1 values, as in the original; the 1000 points of a curve have an odd one.
    """
    window = round(len(y) * f * 2) // 2 + 1
    return np.convolve(np.pad(y, window // 2, mode="edge"), np.full(window, 1 / window), mode="valid")


def fitness(map50: float, map50_95: float) -> float:
    """Weigh mAP50 and mAP50-95 to the one number by which models and hyperparameters are ranked."""
    return 0.1 * map50 + 0.9 * map50_95


class ConfusionMatrix:
    """Count pairs of detection and label.

    `matrix` (nc + 1, nc + 1) has a row for each predicted class and a column for each true one; the last
    stands for the background: below it are the labels nobody found, beside it the false alarms.

    Args:
        nc: number of classes.
        conf: detections must have more confidence to count.
        iou_thres: a detection and a label must overlap more to be a pair, whatever their classes.
        legacy: count as the original: false alarms only in images that have a pair.
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
        """Right and wrong detections of each class, (nc,) each."""
        right = self.matrix.diagonal()
        return right[: self.nc].copy(), (self.matrix.sum(1) - right)[: self.nc]

    def _count(self, predicted: np.ndarray | int, true: np.ndarray | int) -> None:
        """Add one to each cell (predicted, true); a cell may come several times."""
        cells = np.broadcast_arrays(predicted, true)
        np.add.at(self.matrix, (cells[0], cells[1]), 1)


def _pairs(overlap: np.ndarray, iou_thres: float) -> tuple[np.ndarray, np.ndarray]:
    """Pair detections with labels by their overlap (n, m): indices of both sides.

    Each detection claims the label it overlaps most, each label takes the claimant that overlaps it most;
    of equals the last.
    """
    if overlap.size == 0:
        return np.zeros(0, int), np.zeros(0, int)
    count = overlap.shape[1]
    claimed = count - 1 - overlap[:, ::-1].argmax(1)
    best = overlap.max(1)
    claimants = np.flatnonzero(best > iou_thres)
    strongest_first = claimants[np.lexsort((claimants, best[claimants]))[::-1]]
    label, first = np.unique(claimed[strongest_first], return_index=True)
    return strongest_first[first], label
