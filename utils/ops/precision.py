"""Precision, recall and average precision from matches, computed as in the original; without PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

_RECALLS = np.linspace(0, 1, 101)  # at which precision is averaged, as in COCO
_CONFIDENCES = np.linspace(0, 1, 1000)  # of the curves, and candidates for the operating point
_TINY = 1e-16  # keeps quotients of counts finite


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
