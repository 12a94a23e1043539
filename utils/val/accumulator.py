"""Match detections to labels image by image, and turn the matches into metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from utils.base.log import LOG
from utils.ops.metrics import ap_per_class, match_predictions

if TYPE_CHECKING:
    from utils.ops.metrics import APResult, ConfusionMatrix, MatchRule


@dataclass(frozen=True)
class DetectionMatches:
    """The matches of a set by image, from which any figure of any part of it can be made."""

    correct: np.ndarray  # (n, 10) bool: whether each detection is right, for each demanded IoU
    confidence: np.ndarray  # (n,)
    found: np.ndarray  # (n,) class of each detection
    image: np.ndarray  # (n,) its image
    true: np.ndarray  # (m,) class of each label
    true_image: np.ndarray  # (m,) its image
    images: int


IOU_LEVELS = torch.linspace(0.5, 0.95, 10)


class MatchAccumulator:
    """The matches of all images so far, over nc classes."""

    def __init__(self, nc: int, rule: MatchRule = "legacy", confusion: ConfusionMatrix | None = None) -> None:
        self.nc = nc
        self.rule = rule
        self.confusion = confusion
        self.seen = 0
        self.batches: list[int] = []  # images of each
        self._correct: list[Tensor] = []  # (n, 10) an image
        self._detections: list[Tensor] = []  # (n, 2): confidence, class
        self._classes: list[Tensor] = []  # (m,): class of each label

    def add(self, detections: Tensor, labels: Tensor) -> None:
        """Match one image's `detections` (n, 6) with its `labels` (m, 5): class, x1, y1, x2, y2.

        Both are in pixels of the image itself.
        """
        self.seen += 1
        self._correct.append(match_predictions(detections, labels, IOU_LEVELS, self.rule))
        self._detections.append(detections[:, 4:6])
        self._classes.append(labels[:, 0])
        if self.confusion is not None:
            self.confusion.process_batch(detections, labels)

    @classmethod
    def joined(cls, parts: Sequence[MatchAccumulator]) -> MatchAccumulator:
        """One accumulator of several that had every so many-th batch each, in the order of the batches."""
        whole = cls(parts[0].nc, parts[0].rule)
        first = [0] * len(parts)  # image of each part that comes next
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

    def matches(self) -> DetectionMatches:
        """All matches, image by image."""
        detections = _joined(self._detections, 2)
        return DetectionMatches(
            correct=_joined(self._correct, len(IOU_LEVELS)).astype(bool),
            confidence=detections[:, 0],
            found=detections[:, 1].astype(int),
            image=np.repeat(np.arange(self.seen), [len(rows) for rows in self._detections]),
            true=_joined(self._classes, 0).astype(int),
            true_image=np.repeat(np.arange(self.seen), [len(rows) for rows in self._classes]),
            images=self.seen,
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


HEADER = ("%22s" + "%11s" * 6) % ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")
_IOU_LEVELS = 10
_ROW = "%22s" + "%11i" * 2 + "%11.3g" * 4


@dataclass(frozen=True)
class EvalResult:
    """Figures of one validation.

    `maps` (nc,) holds mAP50-95 of each class, and NaN for a class without labels: nothing is known
    about it. `filled_maps` replaces the NaN by the overall mAP, which is what the original reports.
    """

    names: dict[int, str]
    seen: int  # images
    label_counts: np.ndarray  # (nc,) objects of each class
    maps: np.ndarray
    mp: float = 0.0
    mr: float = 0.0
    map50: float = 0.0
    map: float = 0.0
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0)  # box, obj, cls: means over the batches
    speeds: tuple[float, float, float] = (0.0, 0.0, 0.0)  # ms an image: prepare, infer, suppress
    ap: APResult | None = None  # None: not a single detection is right
    matches: DetectionMatches | None = None

    @property
    def instances(self) -> int:
        """Objects in the labels."""
        return int(self.label_counts.sum())

    @property
    def results(self) -> tuple[float, ...]:
        """(P, R, mAP50, mAP50-95, box, obj, cls), the order of results.csv."""
        return (self.mp, self.mr, self.map50, self.map, *self.losses)

    @property
    def filled_maps(self) -> np.ndarray:
        """`maps` with the overall mAP in place of NaN."""
        return np.where(np.isnan(self.maps), self.map, self.maps)

    @property
    def class_ap(self) -> dict[str, np.ndarray]:
        """AP of each class that has labels, (10,) at IoU 0.5 to 0.95; zeros where nothing is right."""
        if self.ap is not None:
            return dict(zip(self.ap.names, self.ap.ap, strict=True))
        labelled = np.flatnonzero(self.label_counts)
        return {self.names.get(int(c), str(c)): np.zeros(_IOU_LEVELS) for c in labelled}

    def fitness(self) -> float:
        """One number to choose the best model by: 0.1 mAP50 + 0.9 mAP50-95."""
        from utils.ops.metrics import fitness

        return fitness(self.map50, self.map)

    def __iter__(self) -> Iterator[Any]:
        """Unpack as the original's return value: results, maps, speeds."""
        return iter((self.results, self.filled_maps, self.speeds))


def print_rows(result: EvalResult, per_class: bool) -> None:
    """Print the row `all` and, if asked for, one row for each class that has labels."""
    LOG.info(
        _ROW, "all", result.seen, result.instances, result.mp, result.mr, result.map50, result.map
    )  # fmt: skip
    if not per_class or result.ap is None:
        return
    ap = result.ap
    for row, index in enumerate(ap.classes):
        count = result.label_counts[index]
        figures = (ap.p[row], ap.r[row], ap.ap[row, 0], ap.ap[row].mean())
        LOG.info(_ROW, result.names[int(index)], result.seen, count, *figures)
