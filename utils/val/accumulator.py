"""Match detections to labels image by image, and compute metrics from the matches."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from utils.base.log import LOG
from utils.ops.metrics import match_predictions
from utils.ops.precision import ap_per_class, fitness

if TYPE_CHECKING:
    from utils.ops.metrics import MatchRule
    from utils.ops.precision import APResult

IOU_LEVELS = torch.linspace(0.5, 0.95, 10)
HEADER = ("%22s" + "%11s" * 6) % ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")


def table_row(name: str, images: int, instances: int, metrics: Sequence[float]) -> str:
    """Return a row of the table of a validation."""
    return f"{name:>22}{images:>11}{instances:>11}" + "".join(f"{value:11.3g}" for value in metrics)


@dataclass(frozen=True)
class DetectionMatches:
    """All matches of a dataset, from which the metrics of any subset of its images can be computed."""

    correct: np.ndarray  # (n, 10) bool: whether each detection is correct at each IoU level
    confidence: np.ndarray  # (n,)
    found: np.ndarray  # (n,) class of each detection
    image: np.ndarray  # (n,) image index of each detection
    true: np.ndarray  # (m,) class of each label
    true_image: np.ndarray  # (m,) image index of each label
    boxes: np.ndarray  # (n, 4) xyxy of each detection, in pixels of its image
    true_boxes: np.ndarray  # (m, 4) of each label
    images: int
    paths: Sequence[str] = ()  # of the images, where they are known


class ValResult(ABC):
    """Metrics of one validation of a model of any task, as training and the scripts use them."""

    names: dict[int, str]
    speeds: tuple[float, float, float]  # ms per image: pre-process, inference, NMS or other post-processing

    @property
    @abstractmethod
    def results(self) -> tuple[float, ...]:
        """Metrics and losses, in the order of results.csv."""

    @property
    @abstractmethod
    def metrics(self) -> tuple[float, ...]:
        """The metrics without losses."""

    @property
    @abstractmethod
    def class_quality(self) -> np.ndarray:
        """How well each class is found, 0-1, (nc,), for --image-weights."""

    @abstractmethod
    def fitness(self) -> float:
        """Return the number by which the best model is chosen."""

    @abstractmethod
    def log(self, per_class: bool) -> None:
        """Log the row `all` and, with `per_class`, rows of the classes."""

    @abstractmethod
    def warn(self, standalone: bool) -> None:
        """Warn about metrics that mean something else than they seem to; `standalone`: not in training."""


@dataclass(frozen=True)
class EvalResult(ValResult):
    """Metrics of one validation of a detector.

    `maps` (nc,) holds the mAP50-95 of each class, NaN for a class without labels, whose AP is unknown.
    `filled_maps` has the overall mAP in place of NaN, which is what the original reports.
    """

    names: dict[int, str]
    seen: int  # number of images
    label_counts: np.ndarray  # (nc,) labels of each class
    maps: np.ndarray
    mp: float = 0.0
    mr: float = 0.0
    map50: float = 0.0
    map: float = 0.0
    losses: tuple[float, ...] = (0.0, 0.0, 0.0)  # means over the batches: box, obj, cls for detection
    speeds: tuple[float, float, float] = (0.0, 0.0, 0.0)  # ms per image: pre-process, inference, NMS
    ap: APResult | None = None  # None: no detection is correct
    matches: DetectionMatches | None = None

    @property
    def instances(self) -> int:
        """Number of labels."""
        return int(self.label_counts.sum())

    @property
    def results(self) -> tuple[float, ...]:
        """(P, R, mAP50, mAP50-95, box, obj, cls), the order of results.csv."""
        return (*self.metrics, *self.losses)

    @property
    def metrics(self) -> tuple[float, ...]:
        """(P, R, mAP50, mAP50-95)."""
        return (self.mp, self.mr, self.map50, self.map)

    @property
    def filled_maps(self) -> np.ndarray:
        """`maps` with the overall mAP in place of NaN."""
        return np.where(np.isnan(self.maps), self.map, self.maps)

    @property
    def class_quality(self) -> np.ndarray:
        """How well each class is found, 0-1, (nc,): its mAP50-95, for --image-weights."""
        return self.filled_maps

    @property
    def class_ap(self) -> dict[str, np.ndarray]:
        """AP (10,) at each IoU level, for each class that has labels; zeros if no detection is correct."""
        if self.ap is not None:
            return dict(zip(self.ap.names, self.ap.ap, strict=True))
        labelled = np.flatnonzero(self.label_counts)
        return {self.names.get(int(c), str(c)): np.zeros(len(IOU_LEVELS)) for c in labelled}

    def fitness(self) -> float:
        """Return the number by which the best model is chosen: 0.1 mAP50 + 0.9 mAP50-95."""
        return fitness(self.map50, self.map)

    def log(self, per_class: bool) -> None:
        """Log the row `all` and, with `per_class`, one row for each class that has labels."""
        LOG.info(table_row("all", self.seen, self.instances, self.metrics))
        for index in np.flatnonzero(self.label_counts) if per_class and self.ap is not None else ():
            counts = self.seen, int(self.label_counts[index])
            LOG.info(table_row(self.names[int(index)], *counts, self.class_metrics(int(index))))

    def warn(self, standalone: bool) -> None:
        if not self.instances:
            LOG.warning("no labels found: precision, recall and mAP cannot be measured and are reported as 0")
        if standalone and self.ap is not None and self.ap.stray:
            LOG.warning(
                f"{self.ap.stray} detections are of classes without labels, and in no metric "
                f"(counted from confidence {self.ap.confidence:.3g}, that of P and R)"
            )

    def class_metrics(self, index: int) -> tuple[float, ...]:
        """Return the `metrics` of one class that has labels."""
        if self.ap is None:
            return (0.0,) * 4
        row = int(np.flatnonzero(self.ap.classes == index)[0])
        ap = self.ap.ap[row]
        return (float(self.ap.p[row]), float(self.ap.r[row]), float(ap[0]), float(ap.mean()))

    def __iter__(self) -> Iterator[Any]:
        """Unpack as the original's return value: results, maps, speeds."""
        return iter((self.results, self.filled_maps, self.speeds))

    def __getitem__(self, index: int) -> Any:
        """Return an element of the original's return value."""
        return tuple(self)[index]

    def __len__(self) -> int:
        return 3


class MatchAccumulator:
    """Accumulator of the matches of all images, over nc classes."""

    def __init__(self, nc: int, rule: MatchRule = "legacy") -> None:
        self.nc = nc
        self.rule = rule
        self.seen = 0  # number of images
        self.batch_sizes: list[int] = []  # images of each batch
        self.paths: list[str] = []  # of all images
        self._correct: list[Tensor] = []  # (n, 10) per image
        self._detections: list[Tensor] = []  # (n, 6) per image: xyxy, confidence, class
        self._labels: list[Tensor] = []  # (m, 5) per image: class, xyxy

    def add(self, detections: Tensor, labels: Tensor, correct: Tensor | None = None) -> None:
        """Match the `detections` (n, 6) of one image with its `labels` (m, 5): class, x1, y1, x2, y2.

        Both are in pixels of the original image. `correct` (n, 10) says which detections are correct, if
        that is known; else boxes are compared.
        """
        self.seen += 1
        if correct is None:
            correct = match_predictions(detections, labels, IOU_LEVELS, self.rule)
        self._correct.append(correct)
        self._detections.append(detections[:, :6])
        self._labels.append(labels)

    def end_batch(self, paths: Sequence[str]) -> None:
        """Record that the images that were added last, with these paths, are a batch."""
        self.batch_sizes.append(len(paths))
        self.paths += paths

    @classmethod
    def merged(cls, parts: Sequence[MatchAccumulator]) -> MatchAccumulator:
        """Merge the accumulators of n processes, of which process i has the batches i, i + n, i + 2n, ...

        The images of the result are in the order in which one process would have seen them.
        """
        whole = cls(parts[0].nc, parts[0].rule)
        first = [0] * len(parts)  # next image of each part
        for turn in range(max(len(part.batch_sizes) for part in parts)):
            for index, part in enumerate(parts):
                if turn < len(part.batch_sizes):
                    images = slice(first[index], first[index] + part.batch_sizes[turn])
                    whole._correct += part._correct[images]
                    whole._detections += part._detections[images]
                    whole._labels += part._labels[images]
                    whole.paths += part.paths[images]
                    whole.batch_sizes.append(part.batch_sizes[turn])
                    first[index] = images.stop
        whole.seen = sum(part.seen for part in parts)
        return whole

    def result(
        self,
        names: dict[int, str],
        losses: tuple[float, ...] = (0.0, 0.0, 0.0),
        speeds: tuple[float, float, float] = (0.0, 0.0, 0.0),
    ) -> EvalResult:
        """Compute the metrics of all images; `losses` and `speeds` are passed on to the result."""
        ap = self.average_precision(names)
        label_counts = np.bincount(self._label_rows()[:, 0].astype(int), minlength=self.nc)
        maps = np.where(label_counts > 0, 0.0, np.nan)
        means: dict[str, float] = {}
        if ap is not None:
            maps[ap.classes] = ap.ap.mean(1)
            means = {"mp": ap.p.mean(), "mr": ap.r.mean(), "map50": ap.ap[:, 0].mean(), "map": ap.ap.mean()}
        return EvalResult(
            names=names,
            seen=self.seen,
            label_counts=label_counts,
            maps=maps,
            losses=losses,
            speeds=speeds,
            ap=ap,
            matches=self.matches(),
            **{key: float(value) for key, value in means.items()},
        )

    def matches(self) -> DetectionMatches:
        """Return all matches as arrays."""
        detections, labels = _concatenated(self._detections, 6), self._label_rows()
        return DetectionMatches(
            correct=_concatenated(self._correct, len(IOU_LEVELS)).astype(bool),
            confidence=detections[:, 4],
            found=detections[:, 5].astype(int),
            image=np.repeat(np.arange(self.seen), [len(rows) for rows in self._detections]),
            true=labels[:, 0].astype(int),
            true_image=np.repeat(np.arange(self.seen), [len(rows) for rows in self._labels]),
            boxes=detections[:, :4],
            true_boxes=labels[:, 1:5],
            images=self.seen,
            paths=tuple(self.paths),
        )

    def average_precision(self, names: dict[int, str]) -> APResult | None:
        """Compute precision, recall and AP of each class that has labels; None if no detection is correct."""
        correct = _concatenated(self._correct, len(IOU_LEVELS)).astype(bool)
        if not correct.any():
            return None
        detections = _concatenated(self._detections, 6)
        return ap_per_class(
            correct, detections[:, 4], detections[:, 5], self._label_rows()[:, 0], names=names
        )

    def _label_rows(self) -> np.ndarray:
        return _concatenated(self._labels, 5)


def _concatenated(parts: list[Tensor], columns: int) -> np.ndarray:
    if not parts:
        return np.zeros((0, columns), np.float32)
    return torch.cat(parts).numpy()
