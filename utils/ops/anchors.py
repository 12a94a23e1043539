"""Measure how well anchors fit the labels of a dataset; find better ones by k-means and a genetic search."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch import Tensor

from utils.base.log import LOG
from utils.base.seeds import generator

GOOD_RECALL = 0.98  # anchors with a higher best possible recall are kept
SMALLEST = 2.0  # pixels; smaller labels are ignored, and anchors are never smaller
SAMPLE = 50_000  # labels for the genetic search; more take time and change nothing


class AnchorFit(NamedTuple):
    """Fit of k anchors to n labels. The fit of a pair is the worse of its two side ratios, at most 1."""

    bpr: float  # best possible recall: fraction of labels with an anchor within the threshold
    aat: float  # anchors above threshold, per label
    fitness: float  # mean over the labels of their best fit, 0 where it is beyond the threshold
    mean_all: float  # mean fit of all pairs
    mean_best: float  # mean over the labels of their best fit


def anchor_fit(wh: np.ndarray, anchors_px: np.ndarray, thr: float) -> AnchorFit:
    """Measure anchors (k, 2) against label sizes (n, 2), both in pixels.

    `thr` is the hyperparameter anchor_t: the largest ratio of sides that is a match.
    """
    if len(wh) == 0:
        return AnchorFit(0.0, 0.0, 0.0, 0.0, 0.0)
    fit = _pair_fit(wh, anchors_px)
    best = fit.max(1)
    return AnchorFit(
        bpr=float((best > 1 / thr).mean()),
        aat=float((fit > 1 / thr).sum(1).mean()),
        fitness=_fitness(best, thr),
        mean_all=float(fit.mean()),
        mean_best=float(best.mean()),
    )


def label_sizes(
    shapes_wh: np.ndarray, labels: Sequence[np.ndarray], imgsz: int, scales: np.ndarray | None = None
) -> np.ndarray:
    """Collect label sizes (n, 2) in pixels of images whose longer side is `imgsz`.

    Args:
        shapes_wh: (N, 2) width and height of the images.
        labels: N arrays (n_i, 5) class, xywh as fractions of the image.
        imgsz: side of the network's input.
        scales: (N,) factor by which each image is enlarged.
    """
    shapes = np.asarray(shapes_wh, np.float64).reshape(-1, 2)
    shapes = shapes * (imgsz / shapes.max(1, keepdims=True))
    if scales is not None:
        shapes = shapes * scales[:, None]
    sizes = [size * rows[:, 3:5] for size, rows in zip(shapes, labels, strict=True)]
    # float32, as in the loss: labels whose ratio is exactly the threshold are common.
    return np.concatenate(sizes).astype(np.float32) if sizes else np.zeros((0, 2), np.float32)


def check_anchors(
    shapes_wh: np.ndarray,
    labels: Sequence[np.ndarray],
    anchors_px: np.ndarray | Tensor,
    strides: Sequence[float] | Tensor,
    imgsz: int,
    thr: float = 4.0,
    seed: int = 0,
) -> tuple[np.ndarray | None, str]:
    """Find better anchors if the current ones miss too many labels.

    Args:
        shapes_wh: (N, 2) width and height of the images.
        labels: N arrays (n_i, 5) class, xywh as fractions of the image.
        anchors_px: (levels, A, 2) in pixels.
        strides: stride of each level, in pixels.
        imgsz: side of the network's input.
        thr: the hyperparameter anchor_t.
        seed: seed of the search.

    Returns:
        New anchors (levels, A, 2) in pixels, sorted as the strides are, or None if the current ones are
        kept; and one line for the log.
    """
    current = np.asarray(anchors_px, np.float64)
    # Vary image sizes by 10 %, as training augments them too.
    scales = generator(seed).uniform(0.9, 1.1, len(shapes_wh))
    wh = label_sizes(shapes_wh, labels, imgsz, scales)
    if len(wh) == 0:
        return None, "AutoAnchor: no labels, the anchors are kept"
    before = anchor_fit(wh, current.reshape(-1, 2), thr)
    line = f"AutoAnchor: {before.aat:.2f} anchors/target, {before.bpr:.3f} Best Possible Recall (BPR). "
    if before.bpr > GOOD_RECALL:
        return None, f"{line}Current anchors are a good fit to dataset"
    count = current.size // 2
    new_anchors = kmean_anchors(label_sizes(shapes_wh, labels, imgsz), count, imgsz, thr, seed=seed)
    after = anchor_fit(wh, new_anchors, thr)
    if after.bpr <= before.bpr:
        return None, f"{line}The best {count} new anchors reach {after.bpr:.3f} BPR, so the anchors are kept"
    sizes = ", ".join(f"{w:.0f},{h:.0f}" for w, h in new_anchors)
    levels = new_anchors.reshape(current.shape)
    if float(strides[0]) > float(strides[-1]):
        levels = levels[::-1].copy()
    return levels, f"{line}New anchors reach {after.bpr:.3f} BPR, {after.aat:.2f} anchors/target: {sizes}"


def kmean_anchors(
    wh: np.ndarray, n: int = 9, img_size: int = 640, thr: float = 4.0, gen: int = 1000, seed: int = 0
) -> np.ndarray:
    """Find `n` anchors for label sizes `wh` (N, 2) in pixels: k-means, then `gen` steps of genetic search.

    Returns:
        (n, 2) width and height in pixels, sorted by area.
    """
    rng = generator(seed)
    tiny = int((wh < 3).any(1).sum())
    if tiny:
        LOG.warning(f"AutoAnchor: {tiny} of {len(wh)} labels are less than 3 pixels wide or high")
    wh = wh[(wh >= SMALLEST).any(1)]
    anchors = _cluster(wh, n, rng)
    if anchors is None:
        LOG.warning(
            f"AutoAnchor: {len(wh)} labels are too few for {n} clusters, starting from random anchors"
        )
        anchors = np.sort(rng.random(2 * n)).reshape(n, 2) * img_size
    if len(wh) > SAMPLE:
        wh = rng.choice(wh, SAMPLE, replace=False, shuffle=False)
    if len(wh):
        anchors = _evolve(anchors, wh, thr, gen, rng)
    return anchors[anchors.prod(1).argsort(kind="stable")].astype(np.float32)


def _cluster(wh: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray | None:
    """Return the centres (n, 2) of n clusters of sizes, or None if there are fewer clusters."""
    from scipy.cluster.vq import kmeans

    if len(np.unique(wh, axis=0)) < n:
        return None
    spread = np.maximum(wh.std(0), 1e-3)  # equal weight for both sides; all labels may have the same width
    centres, _ = kmeans(wh / spread, n, iter=30, rng=rng)
    return centres * spread if len(centres) == n else None


def _evolve(
    anchors: np.ndarray, wh: np.ndarray, thr: float, gen: int, rng: np.random.Generator
) -> np.ndarray:
    """Mutate anchors at random, and keep every mutation that improves the fitness."""
    best = _fitness(_pair_fit(wh, anchors).max(1), thr)
    for _ in range(gen):
        mutated = np.maximum(anchors * _mutation(anchors.shape, rng), SMALLEST)
        fitness = _fitness(_pair_fit(wh, mutated).max(1), thr)
        if fitness > best:
            anchors, best = mutated, fitness
    return anchors


def _mutation(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return random factors around 1, not all of them 1; about nine in ten differ from 1."""
    while True:
        chosen, strength = rng.random(shape) < 0.9, rng.random()
        factors = np.clip(1 + chosen * strength * rng.standard_normal(shape) * 0.1, 0.3, 3.0)
        if (factors != 1).any():
            return factors


def _pair_fit(wh: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Return the fit (n, k) of sizes (n, 2) to anchors (k, 2): 1 if equal, near 0 if very different."""
    with np.errstate(divide="ignore"):  # placeholder anchors have sides of zero
        ratio = np.asarray(wh, np.float32)[:, None] / np.asarray(anchors, np.float32)
        return np.minimum(ratio, 1 / ratio).min(2)


def _fitness(best: np.ndarray, thr: float) -> float:
    return float((best * (best > 1 / thr)).mean())
