"""Hyperparameters of classification: flags, constants of YOLOv5, and what --hyp has in their place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from utils.tasks.classify import transforms
from utils.train.genes import Gene
from utils.train.hyp import KEYS, Hyp, check_hyp, read_hyp_file

MOMENTUM = 0.9  # of SGD and RMSProp; the first beta of Adam
FINAL_LR = 0.01  # as a fraction of the initial learning rate
# Lowest and highest value; those that detection has too are the same.
_LIMITS: dict[str, tuple[float, float]] = {
    **{key: (low, high) for key, (_, low, high) in KEYS.items()},
    "label_smoothing": (0, 0.99),
    "jitter": (0, 1),  # largest change of brightness, contrast and saturation
}
GENES: dict[str, Gene] = {
    "lr0": Gene(1e-5, 0.1),
    "lrf": Gene(0.01, 1),
    "momentum": Gene(0.6, 0.98, 0.3),
    "weight_decay": Gene(0, 0.01),
    "label_smoothing": Gene(0, 0.5),
    "scale": Gene(0.05, 1, 1, True),  # least area of a crop
    "fliplr": Gene(0, 1, 1, True),
    "flipud": Gene(0, 1, 1, True),
    "jitter": Gene(0, 0.9, 1, True),
}


def read_hyp(options: Any) -> Hyp:
    """Return the hyperparameters of a training; those in --hyp take the place of flags.

    Raises:
        ConfigError: a missing file, an unknown key, or a value that is not a number within its range.
    """
    content, where = read_hyp_file(options.hyp) if options.hyp else ({}, "the flags")
    return check(content, where, options)


def check(content: Mapping[str, Any], where: str, options: Any) -> Hyp:
    """Check hyperparameters; missing ones are those of the flags, and the constants of YOLOv5."""
    defaults = {
        "lr0": options.lr0,
        "lrf": FINAL_LR,
        "momentum": MOMENTUM,
        "weight_decay": options.decay,
        "warmup_epochs": 0.0,
        "warmup_momentum": MOMENTUM,
        "warmup_bias_lr": options.lr0,
        "label_smoothing": options.label_smoothing,
        "scale": transforms.AREA[0],
        "fliplr": transforms.FLIP_PROBABILITY,
        "flipud": 0.0,
        "jitter": transforms.JITTER,
    }
    return check_hyp(content, where, {key: (value, *_LIMITS[key]) for key, value in defaults.items()}, {})
