"""The confusion matrix of a detector: which class is taken for which, what is missed, what is invented."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from utils.ops.iou import box_iou


class ConfusionMatrix:
    """Count pairs of detection and label.

    `matrix` (nc + 1, nc + 1) has a row for each predicted class and a column for each true one; the last
    stands for the background: below it are the labels nobody found, beside it the false alarms.

    Args:
        nc: number of classes.
        conf: detections must have more confidence to count.
        iou_thres: a detection and a label must overlap more to be a pair, whatever their classes.
        legacy: count as the original: false alarms only in pictures that have a pair.
    """

    def __init__(self, nc: int, conf: float = 0.25, iou_thres: float = 0.45, legacy: bool = False) -> None:
        self.nc = nc
        self.conf = conf
        self.iou_thres = iou_thres
        self.legacy = legacy
        self.matrix = np.zeros((nc + 1, nc + 1))

    def process_batch(self, detections: Tensor | None, labels: Tensor) -> None:
        """Add one picture.

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
