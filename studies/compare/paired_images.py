"""Compare two models on the same images: interval and p-value for the difference of their mAP.

mAP is not a mean over images, so it is computed again for every bootstrap resample, in which images are
drawn with replacement, the same ones for both models. The p-value is that of a permutation test, which
exchanges the detections of the two models for randomly chosen images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from studies.compare.statistics import LEVEL, POWER, Paired
from utils.base.log import Bar
from utils.base.seeds import generator
from utils.ops.metrics import compute_ap

if TYPE_CHECKING:
    from utils.val.accumulator import DetectionMatches

_BOOTSTRAP, _PERMUTATION = 78, 79  # random number streams


class Scorer:
    """mAP of a set in which every image has an integer weight; a weight of zero leaves an image out.

    Detections are sorted and grouped by class once.
    """

    def __init__(self, matches: DetectionMatches) -> None:
        order = np.argsort(-matches.confidence, kind="stable")
        correct, found, image = matches.correct[order], matches.found[order], matches.image[order]
        self.classes = np.unique(matches.true)
        self._detections = [(correct[found == cls], image[found == cls]) for cls in self.classes]
        self._labels = [matches.true_image[matches.true == cls] for cls in self.classes]

    def __call__(self, weights: np.ndarray, label_weights: np.ndarray | None = None) -> np.ndarray:
        """Return (mAP50, mAP50-95) over the classes that have labels in the weighted set.

        Args:
            weights: (images,) how often the detections of each image count.
            label_weights: (images,) how often its labels count; None: as often.
        """
        label_weights = weights if label_weights is None else label_weights
        found = []
        for (correct, image), labels in zip(self._detections, self._labels, strict=True):
            count = label_weights[labels].sum()
            if count:
                found.append(_average_precision(correct, weights[image], count))
        if not found:
            return np.zeros(2)
        mean = np.mean(found, axis=0)
        return np.array([mean[0], mean.mean()])


def _average_precision(correct: np.ndarray, weights: np.ndarray, labels: float) -> np.ndarray:
    kept = weights > 0
    correct, weights = correct[kept], weights[kept]
    if not len(weights):
        return np.zeros(correct.shape[1])
    right = (correct * weights[:, None]).cumsum(0)
    return compute_ap(right / labels, right / weights.cumsum()[:, None])[0]


def compare_images(
    a: DetectionMatches, b: DetectionMatches, resamples: int = 2000, seed: int = 0, comparisons: int = 1
) -> tuple[Paired, Paired]:
    """Compare two models on the same images.

    Args:
        a: matches of the baseline.
        b: matches of the other model, images in the same order.
        resamples: number of bootstrap resamples, and of permutations.
        seed: of the random numbers.
        comparisons: number of comparisons that share the significance level.

    Returns:
        The differences of mAP50 and of mAP50-95.

    Raises:
        ValueError: the images differ.
    """
    from scipy import stats

    if a.images != b.images or not np.array_equal(a.true, b.true):
        raise ValueError("the models were not measured on the same images")
    map_a, map_b, n = Scorer(a), Scorer(b), a.images
    every_image = np.ones(n, int)
    observed = map_b(every_image) - map_a(every_image)
    boot = np.empty((resamples, 2))
    draw = generator(seed, _BOOTSTRAP)
    for index in Bar(range(resamples), "bootstrap over images"):
        weights = np.bincount(draw.integers(n, size=n), minlength=n)
        boot[index] = map_b(weights) - map_a(weights)
    p = _permutation_test(a, b, observed, resamples, seed)
    low, high = np.quantile(boot, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    standard_errors = stats.norm.isf(LEVEL / comparisons / 2) + stats.norm.ppf(POWER)
    detectable = standard_errors * boot.std(0, ddof=1)
    made = [Paired(n, *map(float, values)) for values in zip(observed, low, high, p, detectable, strict=True)]
    return made[0], made[1]


def _permutation_test(
    a: DetectionMatches, b: DetectionMatches, observed: np.ndarray, times: int, seed: int
) -> np.ndarray:
    """Return the share of permutations whose difference is at least as large as observed; (2,)."""
    both, n = Scorer(_concatenate(a, b)), a.images
    hits = np.zeros(2)
    draw = generator(seed, _PERMUTATION)
    labels = np.repeat([1, 0], n)  # both halves have the same labels; count them once
    for _ in Bar(range(times), "permutations of the two models"):
        swap = draw.integers(2, size=n)
        first, second = np.concatenate((1 - swap, swap)), np.concatenate((swap, 1 - swap))
        difference = both(second, labels) - both(first, labels)
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
        images=a.images + b.images,
    )
