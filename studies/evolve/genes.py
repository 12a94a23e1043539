"""The genes: which hyperparameters are searched, within which bounds, and how far they step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from utils.train.hyp import Hyp

DIGITS = 5  # to which values are rounded


@dataclass(frozen=True)
class Gene:
    """A hyperparameter's bounds, and the gain of its steps; 0: the genetic search leaves it alone."""

    low: float
    high: float
    gain: float = 1.0
    augmentation: bool = False  # the population search looks at these alone


# Numerics, section 11.
GENES: dict[str, Gene] = {
    "lr0": Gene(1e-5, 0.1),
    "lrf": Gene(0.01, 1),
    "momentum": Gene(0.6, 0.98, 0.3),
    "weight_decay": Gene(0, 0.001),
    "warmup_epochs": Gene(0, 5),
    "warmup_momentum": Gene(0, 0.95),
    "warmup_bias_lr": Gene(0, 0.2),
    "box": Gene(0.02, 0.2),
    "cls": Gene(0.2, 4),
    "cls_pw": Gene(0.5, 2),
    "obj": Gene(0.2, 4),
    "obj_pw": Gene(0.5, 2),
    "iou_t": Gene(0.1, 0.7, 0),  # nothing reads it
    "anchor_t": Gene(2, 8),
    "anchors": Gene(2, 10, 2),
    "fl_gamma": Gene(0, 2, 0),
    "hsv_h": Gene(0, 0.1, 1, True),
    "hsv_s": Gene(0, 0.9, 1, True),
    "hsv_v": Gene(0, 0.9, 1, True),
    "degrees": Gene(0, 45, 1, True),
    "translate": Gene(0, 0.9, 1, True),
    "scale": Gene(0, 0.9, 1, True),
    "shear": Gene(0, 10, 1, True),
    "perspective": Gene(0, 0.001, 0, True),
    "flipud": Gene(0, 1, 1, True),
    "fliplr": Gene(0, 1, 0, True),
    "mosaic": Gene(0, 1, 1, True),
    "mixup": Gene(0, 1, 1, True),
    "copy_paste": Gene(0, 1, 1, True),
}


def bounds_around(start: Hyp) -> dict[str, tuple[float, float]]:
    """Bounds of the genes that a --hyp file has; what the file itself holds is never out of bounds."""
    return {
        key: (min(gene.low, start[key]), max(gene.high, start[key]))
        for key, gene in GENES.items()
        if key in start
    }


def settle(value: float, bounds: tuple[float, float]) -> float:
    """A value within its bounds, rounded as files show it."""
    low, high = bounds
    return min(max(round(float(value), DIGITS), low), high)


def settle_all(hyp: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> Hyp:
    """Settle every gene; other keys stay as they are."""
    return {key: settle(value, bounds[key]) if key in bounds else value for key, value in hyp.items()}
