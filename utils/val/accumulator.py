"""Count, picture by picture, which detections are right; then turn the counts into figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from utils.ops.metrics import ap_per_class, match_predictions

if TYPE_CHECKING:
    from utils.ops.confusion import ConfusionMatrix
    from utils.ops.metrics import APResult, MatchRule


@dataclass(frozen=True)
class Matches:
    """The matches of a set by picture, from which any figure of any part of it can be made."""

    correct: np.ndarray  # (n, 10) bool: whether each detection is right, for each demanded IoU
    confidence: np.ndarray  # (n,)
    found: np.ndarray  # (n,) class of each detection
    picture: np.ndarray  # (n,) its picture
    true: np.ndarray  # (m,) class of each label
    true_picture: np.ndarray  # (m,) its picture
    pictures: int


IOU_LEVELS = torch.linspace(0.5, 0.95, 10)


class Tally:
    """The matches of all pictures so far, over nc classes."""

    def __init__(self, nc: int, rule: MatchRule = "legacy", confusion: ConfusionMatrix | None = None) -> None:
        self.nc = nc
        self.rule = rule
        self.confusion = confusion
        self.seen = 0
        self.batches: list[int] = []  # pictures of each
        self._correct: list[Tensor] = []  # (n, 10) a picture
        self._detections: list[Tensor] = []  # (n, 2): confidence, class
        self._classes: list[Tensor] = []  # (m,): class of each label

    def add(self, detections: Tensor, labels: Tensor) -> None:
        """Match one picture's `detections` (n, 6) with its `labels` (m, 5): class, x1, y1, x2, y2.

        Both are in pixels of the picture itself.
        """
        self.seen += 1
        self._correct.append(match_predictions(detections, labels, IOU_LEVELS, self.rule))
        self._detections.append(detections[:, 4:6])
        self._classes.append(labels[:, 0])
        if self.confusion is not None:
            self.confusion.process_batch(detections, labels)

    @classmethod
    def joined(cls, parts: Sequence[Tally]) -> Tally:
        """One tally of several that had every so many-th batch each, in the order of the batches."""
        whole = cls(parts[0].nc, parts[0].rule)
        first = [0] * len(parts)  # picture of each part that comes next
        for turn in range(max(len(part.batches) for part in parts)):
            for index, part in enumerate(parts):
                if turn < len(part.batches):
                    rows = slice(first[index], first[index] + part.batches[turn])
                    whole._correct += part._correct[rows]
                    whole._detections += part._detections[rows]
                    whole._classes += part._classes[rows]
                    whole.batches.append(part.batches[turn])
                    first[index] = rows.stop
        whole.seen = sum(part.seen for part in parts)
        return whole

    def label_counts(self) -> np.ndarray:
        """Objects of each class in the labels, (nc,)."""
        return np.bincount(_joined(self._classes, 0).astype(int), minlength=self.nc)

    def matches(self) -> Matches:
        """All matches, picture by picture."""
        detections = _joined(self._detections, 2)
        return Matches(
            correct=_joined(self._correct, len(IOU_LEVELS)).astype(bool),
            confidence=detections[:, 0],
            found=detections[:, 1].astype(int),
            picture=np.repeat(np.arange(self.seen), [len(rows) for rows in self._detections]),
            true=_joined(self._classes, 0).astype(int),
            true_picture=np.repeat(np.arange(self.seen), [len(rows) for rows in self._classes]),
            pictures=self.seen,
        )

    def average_precision(self, names: dict[int, str]) -> APResult | None:
        """Precision, recall and AP of each class that has labels; None if no detection is right."""
        correct = _joined(self._correct, len(IOU_LEVELS)).astype(bool)
        if not correct.any():
            return None
        found = _joined(self._detections, 2)
        return ap_per_class(correct, found[:, 0], found[:, 1], _joined(self._classes, 0), names=names)

    def maps(self, ap: APResult | None) -> np.ndarray:
        """mAP50-95 of each class, (nc,); NaN for a class without labels."""
        maps = np.where(self.label_counts() > 0, 0.0, np.nan)
        if ap is not None:
            maps[ap.classes] = ap.ap.mean(1)
        return maps


def _joined(parts: list[Tensor], columns: int) -> np.ndarray:
    if not parts:
        return np.zeros((0, columns) if columns else 0, np.float32)
    return torch.cat(parts).numpy()
