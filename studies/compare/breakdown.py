"""Break the mAP of a detector down: AP by object size, and what each kind of error costs.

Both are computed from the matches of val.py, so that the AP over all sizes, and the AP50 that errors are
counted from, are those of val.py.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from studies.compare.metrics import KINDS, SIZES
from utils.ops.boxes import box_iou
from utils.ops.precision import compute_ap

if TYPE_CHECKING:
    from utils.val.accumulator import DetectionMatches

COCO_AREAS = (0.0, 32.0**2, 96.0**2, math.inf)  # pixels of the original images
_FOREGROUND, _BACKGROUND = 0.5, 0.1  # IoU of a correct detection, and of one that touches no object


def ap_by_size(matches: DetectionMatches) -> dict[str, float]:
    """Return the AP50-95 of objects of each size; sizes without labels have none.

    Small, medium and large are those of COCO; the quartiles are those of the labels' box areas, from the
    smallest. As in COCO, labels of other sizes are ignored along with the detections that match them, and
    so are detections of other sizes that match no label. Areas of segmentation models are those of boxes.
    """
    areas = _areas(matches.true_boxes)
    quartiles = np.quantile(areas, (0.25, 0.5, 0.75)).tolist() if len(areas) else [0.0] * 3
    label = matched_labels(matches)
    found: dict[str, float] = {}
    for borders, names in ((COCO_AREAS, SIZES[:3]), ((0.0, *quartiles, math.inf), SIZES[3:])):
        for name, low, high in zip(names, borders, borders[1:], strict=False):
            ap = _ap_between(matches, label, low, high)
            if not math.isnan(ap):
                found[name] = ap
    return found


def matched_labels(matches: DetectionMatches) -> np.ndarray:
    """Return the index of the label that each detection matches at each IoU level, -1 for none: (n, 10) int.

    Of correct detections in the order of confidence, each matches the free label of its class with the
    highest IoU; both rules of `match_predictions` agree with that.
    """
    matched = np.full(matches.correct.shape, -1)
    for rows, labels, overlap in _by_image(matches):
        overlap = overlap * (matches.found[rows, None] == matches.true[labels])
        free = np.ones((matches.correct.shape[1], len(labels)), bool)
        right = np.flatnonzero(matches.correct[rows].any(1))
        for row in right[np.argsort(-matches.confidence[rows][right], kind="stable")]:
            levels = np.flatnonzero(matches.correct[rows[row]])
            best = (overlap[row] * free[levels]).argmax(1)
            matched[rows[row], levels] = labels[best]
            free[levels, best] = False
    return matched


def ap_by_image(matches: DetectionMatches) -> dict[str, float]:
    """Return the mean AP50-95 of the classes of each image alone, by path; without labels there is none."""
    rows, labels = (_slices(one, np.arange(matches.images)) for one in (matches.image, matches.true_image))
    found: dict[str, float] = {}
    if not matches.paths:
        return found
    for path, of_image, of_labels in zip(matches.paths, rows, labels, strict=True):
        order = of_image[np.argsort(-matches.confidence[of_image], kind="stable")]
        aps = []
        for cls, count in Counter(matches.true[of_labels].tolist()).items():
            correct = matches.correct[order[matches.found[order] == cls]]
            aps.append(np.mean([_ap(level, count) for level in correct.T]))
        if aps:
            found[path] = float(np.mean(aps))
    return found


def error_costs(matches: DetectionMatches) -> dict[str, float]:
    """Return by how much mAP50 would rise if all errors of one kind were corrected, for each of `KINDS`.

    The kinds and corrections are those of TIDE (Bolya et al., arXiv:2008.08115, sections 2.2 and 2.3), with
    its IoU thresholds of 0.5 and 0.1. A detection of the right class that overlaps too little is a location
    error, one that overlaps enough but has the wrong class is a class error; both are corrected into a
    match, unless the label has one. Other wrong detections are removed: with too little overlap and the
    wrong class ("both"), of an object that is found already ("duplicate"), and of no object
    ("background"). Labels that are neither matched nor touched by a class or location error are "missed",
    and are removed.
    """
    kind, label = _kinds(matches)
    correct = matches.correct[:, 0]
    everything = np.ones(len(correct), bool)
    before = _mean_ap50(matches, correct, matches.found, everything)
    costs: dict[str, float] = {}
    taken = matched_labels(matches)[:, 0]
    taken = taken[taken >= 0]
    for name in ("class", "location"):
        of_kind = np.flatnonzero(kind == name)
        of_kind = of_kind[np.argsort(-matches.confidence[of_kind], kind="stable")]
        _, first = np.unique(label[of_kind], return_index=True)  # one detection for each label
        fixed = of_kind[first]
        fixed = fixed[~np.isin(label[fixed], taken)]
        right, found, kept = correct.copy(), matches.found.copy(), everything.copy()
        right[fixed], found[fixed] = True, matches.true[label[fixed]]
        kept[np.setdiff1d(of_kind, fixed)] = False
        costs[name] = _mean_ap50(matches, right, found, kept) - before
    for name in ("both", "duplicate", "background"):
        costs[name] = _mean_ap50(matches, correct, matches.found, kind != name) - before
    touched = np.isin(kind, ("class", "location"))
    seen = np.isin(np.arange(len(matches.true)), np.concatenate((taken, label[touched])))
    costs["missed"] = _mean_ap50(matches, correct, matches.found, everything, seen) - before
    return costs


def _kinds(matches: DetectionMatches) -> tuple[np.ndarray, np.ndarray]:
    """Return the kind of error of each detection, empty for none, and the label of class and location errors.

    The order of the tests is that of the authors' tidecv.
    """
    kind = np.full(len(matches.correct), "", dtype=f"<U{max(map(len, KINDS))}")
    label = np.full(len(kind), -1)
    for rows, labels, overlap in _by_image(matches):
        same = matches.found[rows, None] == matches.true[labels]
        right, wrong = (np.where(chosen, overlap, -1.0) for chosen in (same, ~same))
        best_right, best_wrong = (one.max(1, initial=0.0) for one in (right, wrong))
        is_location = (best_right >= _BACKGROUND) & (best_right < _FOREGROUND)
        tests = (
            (is_location, "location"),
            (best_wrong >= _FOREGROUND, "class"),
            (best_right >= _FOREGROUND, "duplicate"),
            (np.maximum(best_right, best_wrong) <= _BACKGROUND, "background"),
        )
        kind[rows] = np.select([test for test, _ in tests], [name for _, name in tests], "both")
        if len(labels):
            label[rows] = labels[np.where(is_location, right.argmax(1), wrong.argmax(1))]
    kind[matches.correct[:, 0]] = ""
    return kind, label


def _mean_ap50(
    matches: DetectionMatches,
    correct: np.ndarray,
    found: np.ndarray,
    kept: np.ndarray,
    labels: np.ndarray | None = None,
) -> float:
    """Return the mean AP50 over classes.

    Args:
        matches: confidence and labels.
        correct: (n,) bool, which detections match a label.
        found: (n,) their classes.
        kept: (n,) bool, which detections count.
        labels: (m,) bool, which labels count; None: all. Classes without any have no errors left: AP is 1.
    """
    order = np.argsort(-matches.confidence, kind="stable")
    order = order[kept[order]]
    aps = []
    for cls in np.unique(matches.true):
        count = int(((matches.true == cls) & (True if labels is None else labels)).sum())
        chosen = order[found[order] == cls]
        aps.append(_ap(correct[chosen], count) if count else 1.0)
    return float(np.mean(aps)) if aps else 0.0


def _ap(correct: np.ndarray, labels: int) -> float:
    """Return the AP of detections (n,) of one class, best first."""
    if not correct.any():
        return 0.0
    right = correct.cumsum(dtype=float)
    return float(compute_ap(right / labels, right / np.arange(1, len(correct) + 1))[0])


def _ap_between(matches: DetectionMatches, label: np.ndarray, low: float, high: float) -> float:
    """Return the AP50-95 of labels with low <= area < high; NaN if there are none."""
    inside, found_inside = (
        (areas >= low) & (areas < high) for areas in (_areas(matches.true_boxes), _areas(matches.boxes))
    )
    counts = np.bincount(matches.true[inside])
    order = np.argsort(-matches.confidence, kind="stable")
    aps: list[float] = []
    for cls in np.flatnonzero(counts):
        of_class = order[matches.found[order] == cls]
        for level in range(label.shape[1]):
            matched = label[of_class, level]
            is_match = matched >= 0
            kept = found_inside[of_class]
            kept[is_match] = inside[matched[is_match]]
            aps.append(_ap(is_match[kept], int(counts[cls])))
    return float(np.mean(aps)) if aps else math.nan


def _areas(boxes: np.ndarray) -> np.ndarray:
    sides = boxes[:, 2:] - boxes[:, :2]
    return np.asarray(sides.prod(1), float)


def _by_image(matches: DetectionMatches) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield the indices of detections and labels of each image with detections, and their IoU (n, m)."""
    numbers = np.arange(matches.images)
    rows, labels = (_slices(indices, numbers) for indices in (matches.image, matches.true_image))
    for of_image, of_labels in zip(rows, labels, strict=True):
        if len(of_image):
            boxes, true = matches.boxes[of_image], matches.true_boxes[of_labels]
            yield of_image, of_labels, box_iou(torch.from_numpy(boxes), torch.from_numpy(true)).numpy()


def _slices(image: np.ndarray, numbers: Sequence[int] | np.ndarray) -> list[np.ndarray]:
    """Return the indices of the rows of each image."""
    order = np.argsort(image, kind="stable")
    first, end = (np.searchsorted(image[order], numbers, side) for side in ("left", "right"))
    return [order[a:b] for a, b in zip(first, end, strict=True)]
