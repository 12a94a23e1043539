"""Compare two models on the same images: bootstrap over images, and exchange of their results."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from studies.compare.statistics import LEVEL, POWER, Paired
from utils.base.log import Bar
from utils.base.seeds import generator
from utils.ops.precision import compute_ap

if TYPE_CHECKING:
    from utils.tasks.classify.validation import ClassMatches
    from utils.val.accumulator import DetectionMatches

_BOOTSTRAP, _PERMUTATION = 78, 79  # random number streams
_OTHER_IMAGES = "the models were not measured on the same images"


class Scorer:
    """mAP and AP of a set in which every image has an integer weight; zero leaves an image out.

    Detections are sorted and grouped by class once.
    """

    def __init__(self, matches: DetectionMatches) -> None:
        order = np.argsort(-matches.confidence, kind="stable")
        correct, found, image = matches.correct[order], matches.found[order], matches.image[order]
        self.classes = np.unique(matches.true)
        self._detections = [(correct[found == cls], image[found == cls]) for cls in self.classes]
        self._labels = [matches.true_image[matches.true == cls] for cls in self.classes]

    def __call__(self, weights: np.ndarray, label_weights: np.ndarray | None = None) -> np.ndarray:
        """Return mAP50, mAP50-95, and the AP50-95 of each class, NaN without labels in the weighted set.

        Args:
            weights: (images,) how often the detections of each image count.
            label_weights: (images,) how often its labels count; None: as often.
        """
        label_weights = weights if label_weights is None else label_weights
        found = np.full((len(self.classes), 2), np.nan)  # AP50, AP50-95
        for index, ((correct, image), labels) in enumerate(zip(self._detections, self._labels, strict=True)):
            count = label_weights[labels].sum()
            if count:
                ap = _average_precision(correct, weights[image], count)
                found[index] = ap[0], ap.mean()
        known = found[~np.isnan(found[:, 0])]
        return np.append(known.mean(0) if len(known) else np.zeros(2), found[:, 1])


def _average_precision(correct: np.ndarray, weights: np.ndarray, labels: float) -> np.ndarray:
    kept = weights > 0
    correct, weights = correct[kept], weights[kept]
    if not len(weights):
        return np.zeros(correct.shape[1])
    right = (correct * weights[:, None]).cumsum(0)
    return compute_ap(right / labels, right / weights.cumsum()[:, None])[0]


class Pair(Protocol):
    """Two models, measured on the same images."""

    images: int

    def difference(self, weights: np.ndarray) -> np.ndarray:
        """Return what the second model has more of each metric, if an image counts `weights` (images,)."""
        ...

    def exchanged(self, swap: np.ndarray) -> np.ndarray:
        """Return the differences after results of the images in `swap` (images,) of 0 and 1 are exchanged."""
        ...


class ClassPair:
    """Two classifiers: differences of top-1 and top-5."""

    def __init__(self, a: ClassMatches, b: ClassMatches) -> None:
        if a.paths != b.paths:
            raise ValueError(_OTHER_IMAGES)
        self.images = len(a.paths)
        self._gains = b.hits.astype(int) - a.hits  # (images, 2): -1, 0 or 1

    def difference(self, weights: np.ndarray) -> np.ndarray:
        gains: np.ndarray = weights @ self._gains / self.images
        return gains

    def exchanged(self, swap: np.ndarray) -> np.ndarray:
        return self.difference(1 - 2 * swap)


class BoxPair:
    """Two detectors: differences of mAP50, mAP50-95, and the AP50-95 of each class with labels."""

    def __init__(self, a: DetectionMatches, b: DetectionMatches) -> None:
        if a.images != b.images or not np.array_equal(a.true, b.true):
            raise ValueError(_OTHER_IMAGES)
        self.images = a.images
        self._a, self._b, self._both = Scorer(a), Scorer(b), Scorer(_concatenate(a, b))
        self._labels = np.repeat([1, 0], self.images)  # both halves have the same labels; count them once

    def difference(self, weights: np.ndarray) -> np.ndarray:
        return self._b(weights) - self._a(weights)

    def exchanged(self, swap: np.ndarray) -> np.ndarray:
        first, second = np.concatenate((1 - swap, swap)), np.concatenate((swap, 1 - swap))
        return self._both(second, self._labels) - self._both(first, self._labels)


def pair_of(a: DetectionMatches | ClassMatches, b: DetectionMatches | ClassMatches) -> Pair:
    """Return the pair of two models of one task, a the baseline, with images in the same order.

    Raises:
        ValueError: the images differ.
    """
    if hasattr(a, "hits"):
        return ClassPair(cast("ClassMatches", a), cast("ClassMatches", b))
    return BoxPair(a, cast("DetectionMatches", b))


def compare_images(pair: Pair, resamples: int = 2000, seed: int = 0, comparisons: int = 1) -> list[Paired]:
    """Compare two models on the same images.

    Args:
        pair: the models.
        resamples: number of bootstrap resamples, and of permutations.
        seed: of the random numbers.
        comparisons: number of comparisons that share the significance level.

    Returns:
        The difference of each metric.
    """
    from scipy import stats

    n = pair.images
    observed = pair.difference(np.ones(n, int))
    boot = np.empty((resamples, len(observed)))
    draw = generator(seed, _BOOTSTRAP)
    for index in Bar(range(resamples), "bootstrap over images"):
        boot[index] = pair.difference(np.bincount(draw.integers(n, size=n), minlength=n))
    p = _permutation_test(pair, observed, resamples, seed)
    low, high = np.nanquantile(boot, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    standard_errors = stats.norm.isf(LEVEL / comparisons / 2) + stats.norm.ppf(POWER)
    detectable = standard_errors * np.nanstd(boot, axis=0, ddof=1)
    return [Paired(n, *map(float, values)) for values in zip(observed, low, high, p, detectable, strict=True)]


def _permutation_test(pair: Pair, observed: np.ndarray, times: int, seed: int) -> np.ndarray:
    """Return the share of permutations whose difference is at least as large as observed, by metric."""
    hits = np.zeros(len(observed))
    draw = generator(seed, _PERMUTATION)
    for _ in Bar(range(times), "permutations of the two models"):
        difference = pair.exchanged(draw.integers(2, size=pair.images))
        hits += np.abs(difference) >= np.abs(observed) - 1e-12
    return (hits + 1) / (times + 1)


def _concatenate(a: DetectionMatches, b: DetectionMatches) -> DetectionMatches:
    """Return the detections of both models, those of b with image indices that follow those of a."""
    from utils.val.accumulator import DetectionMatches as Both

    return Both(
        correct=np.concatenate((a.correct, b.correct)),
        confidence=np.concatenate((a.confidence, b.confidence)),
        found=np.concatenate((a.found, b.found)),
        image=np.concatenate((a.image, b.image + a.images)),
        true=np.concatenate((a.true, b.true)),
        true_image=np.concatenate((a.true_image, b.true_image + a.images)),
        boxes=np.concatenate((a.boxes, b.boxes)),
        true_boxes=np.concatenate((a.true_boxes, b.true_boxes)),
        images=a.images + b.images,
    )
