"""Two models on the same images: is the difference of their mAP more than the choice of images?

mAP is no mean over images, so it is computed again for every resample: images are drawn with
replacement, the same ones for both models. The p-value comes from exchanging the two models' answers,
image by image at random: if the models are equally good, that changes nothing but by chance.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from studies.compare.statistics import LEVEL, POWER, Paired
from utils.base.progress import Bar
from utils.base.seeds import generator
from utils.ops.metrics import compute_ap

if TYPE_CHECKING:
    from utils.val.accumulator import DetectionMatches

_BOOTSTRAP, _EXCHANGE = 78, 79  # streams of random numbers
Score = Callable[[np.ndarray], np.ndarray]


class Scorer:
    """mAP of a set in which every image counts with a weight, a whole number.

    Sorting and grouping by class are done once; a weight of zero leaves an image out.
    """

    def __init__(self, matches: DetectionMatches) -> None:
        order = np.argsort(-matches.confidence, kind="stable")
        correct, found, image = matches.correct[order], matches.found[order], matches.image[order]
        self.classes = np.unique(matches.true)
        self._detections = [(correct[found == cls], image[found == cls]) for cls in self.classes]
        self._labels = [matches.true_image[matches.true == cls] for cls in self.classes]

    def __call__(self, weights: np.ndarray, label_weights: np.ndarray | None = None) -> np.ndarray:
        """(mAP50, mAP50-95) over the classes that have labels in the weighted set.

        Args:
            weights: (images,) how often each image's detections count.
            label_weights: (images,) how often its labels do; None: as often.
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
        b: of the other model, images in the same order.
        resamples: of the bootstrap, and exchanges of the test.
        seed: of the random numbers.
        comparisons: in all, that share the error level.

    Returns:
        The differences of mAP50 and of mAP50-95.

    Raises:
        ValueError: not the same images.
    """
    from scipy import stats

    if a.images != b.images or not np.array_equal(a.true, b.true):
        raise ValueError("the models were not measured on the same images")
    one, two, n = Scorer(a), Scorer(b), a.images
    whole = np.ones(n, int)
    observed = two(whole) - one(whole)
    boot = np.empty((resamples, 2))
    draw = generator(seed, _BOOTSTRAP)
    for index in Bar(range(resamples), "bootstrap over images"):
        weights = np.bincount(draw.integers(n, size=n), minlength=n)
        boot[index] = two(weights) - one(weights)
    p = _exchange_test(a, b, observed, resamples, seed)
    low, high = np.quantile(boot, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    sure = stats.norm.isf(LEVEL / comparisons / 2) + stats.norm.ppf(POWER)  # standard errors
    detectable = sure * boot.std(0, ddof=1)
    made = [Paired(n, *map(float, values)) for values in zip(observed, low, high, p, detectable, strict=True)]
    return made[0], made[1]


def _exchange_test(
    a: DetectionMatches, b: DetectionMatches, observed: np.ndarray, times: int, seed: int
) -> np.ndarray:
    """Share of random exchanges that differ at least as much as observed; (2,)."""
    both, n = Scorer(_side_by_side(a, b)), a.images
    whole, hits = np.ones(2 * n, int), np.zeros(2)
    draw = generator(seed, _EXCHANGE)
    labels = np.concatenate((whole[:n], 0 * whole[:n]))  # they stand in both halves; count them once
    for _ in Bar(range(times), "exchanges of the two models"):
        swap = draw.integers(2, size=n)
        first, second = np.concatenate((1 - swap, swap)), np.concatenate((swap, 1 - swap))
        difference = both(second, labels) - both(first, labels)
        hits += np.abs(difference) >= np.abs(observed) - 1e-12
    return (hits + 1) / (times + 1)


def _side_by_side(a: DetectionMatches, b: DetectionMatches) -> DetectionMatches:
    """Both models' detections, b's as if of further images."""
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
