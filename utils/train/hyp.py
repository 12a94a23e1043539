"""Hyperparameters: reading and checking the yaml, defaults, and scaling for a model."""

from __future__ import annotations

import contextlib
import difflib
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError
from utils.base.paths import find_file
from utils.base.yaml_io import read_yaml

Hyp = dict[str, float]

# Key -> (default, lowest, highest). The defaults are those of hyp.scratch-low.yaml (formats, section 2).
KEYS: dict[str, tuple[float, float, float]] = {
    "lr0": (0.01, 0, 10),  # initial learning rate
    "lrf": (0.01, 0, 1),  # final learning rate as a fraction of lr0
    "momentum": (0.937, 0, 0.9999),  # of SGD; the first beta of Adam
    "weight_decay": (0.0005, 0, 1),  # for the nominal batch of 64
    "warmup_epochs": (3.0, 0, math.inf),
    "warmup_momentum": (0.8, 0, 0.9999),
    "warmup_bias_lr": (0.1, 0, 10),
    "box": (0.05, 0, math.inf),  # gains of the three losses
    "cls": (0.5, 0, math.inf),
    "cls_pw": (1.0, 0, math.inf),  # weight of positives in the class and objectness losses
    "obj": (1.0, 0, math.inf),
    "obj_pw": (1.0, 0, math.inf),
    "iou_t": (0.2, 0, 1),  # unused; accepted because every yaml has it
    "anchor_t": (4.0, 1, math.inf),  # largest ratio of a box to its anchor
    "fl_gamma": (0.0, 0, math.inf),  # focal loss; 0 is plain cross entropy
    "hsv_h": (0.015, 0, 1),
    "hsv_s": (0.7, 0, 1),
    "hsv_v": (0.4, 0, 1),
    "degrees": (0.0, 0, 180),
    "translate": (0.1, 0, 1),
    "scale": (0.5, 0, 1),
    "shear": (0.0, 0, 90),
    "perspective": (0.0, 0, 0.01),
    "flipud": (0.0, 0, 1),  # this and the following are probabilities
    "fliplr": (0.5, 0, 1),
    "mosaic": (1.0, 0, 1),
    "mixup": (0.0, 0, 1),
    "copy_paste": (0.0, 0, 1),
}
_GAINS = ("box", "cls", "obj")
_LARGEST = sys.float_info.max  # integers may be larger
OPTIONAL: dict[str, tuple[float, float]] = {
    "anchors": (1, 100),  # anchors per level; their sizes are then fitted to the data
    "label_smoothing": (0, 1),  # a flag; part of the hyp.yaml that a run writes
}


def load_hyp(source: str | dict[str, Any], label_smoothing: float = 0.0) -> Hyp:
    """Read hyperparameters from a yaml (path or bare name), or check those that a run has saved.

    Raises:
        ConfigError: a missing file, an unknown key, or a value that is not a number within its range.
    """
    return {**check_hyp(*read_hyp_file(source)), "label_smoothing": label_smoothing}


def read_hyp_file(source: str | dict[str, Any]) -> tuple[dict[str, Any], str]:
    """Return hyperparameters, and where they are from for messages; see `load_hyp`."""
    if isinstance(source, dict):
        return source, "the saved hyp"
    path = find_file(source, ("data", "models"), (".yaml", ".yml"), "--hyp")
    return read_yaml(path), str(path)


# Keys of the first versions of YOLOv5, and of YOLOv8.
_OF_OTHER_VERSIONS = {
    "giou": "the gain of the box loss is now called box",
    "lr": "the initial learning rate is called lr0",
    **dict.fromkeys(
        ("dfl", "pose", "kobj", "nbs", "bgr", "close_mosaic", "copy_paste_mode", "auto_augment", "erasing"),
        "it is of YOLOv8, and has no meaning here; leave it out",
    ),
}


def check_hyp(
    content: Mapping[str, Any],
    where: str | Path,
    keys: Mapping[str, tuple[float, float, float]] = KEYS,
    optional: Mapping[str, tuple[float, float]] = OPTIONAL,
) -> Hyp:
    """Check keys and values; missing keys get their default.

    Args:
        content: hyperparameters.
        where: they are from, for messages.
        keys: default, lowest and highest value of each.
        optional: lowest and highest value of keys that may be missing.
    """
    known = [*keys, *optional]
    for key in content:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else f"; expected {', '.join(known)}"
            hint = f": {_OF_OTHER_VERSIONS[key]}" if key in _OF_OTHER_VERSIONS else hint
            raise ConfigError(f"{where}: unknown hyperparameter {key!r}{hint}")
    hyp = {
        key: _number(content.get(key, default), key, (low, high), where)
        for key, (default, low, high) in keys.items()
    }
    for key, limits in optional.items():
        if content.get(key) is not None:
            hyp[key] = _number(content[key], key, limits, where)
    if all(hyp.get(key) == 0 for key in _GAINS):
        raise ConfigError(f"{where}: box, cls and obj are 0, which leaves nothing to train")
    if hyp.get("lr0") == 0 and not hyp.get("warmup_bias_lr"):
        raise ConfigError(f"{where}: lr0 and warmup_bias_lr are 0, which leaves nothing to train")
    return hyp


def _number(value: Any, key: str, limits: tuple[float, float], where: str | Path) -> float:
    low, high = limits
    if isinstance(value, str):  # yaml reads 1e-3 as text: its floats need a dot
        with contextlib.suppress(ValueError):
            value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{where}: {key} is {value!r}, expected a number")
    if not (low <= value <= high and value <= _LARGEST):  # also False for NaN
        upper = "" if high == math.inf else f" and at most {high:g}"
        raise ConfigError(f"{where}: {key} is {value!s:.20}, expected at least {low:g}{upper}")
    return value


def scale_gains(hyp: Hyp, *, levels: int, nc: int, imgsz: int) -> Hyp:
    """Adapt the loss gains, tuned for 3 levels, 80 classes and 640 pixels, to this model."""
    depth = 3 / levels
    return {
        **hyp,
        "box": hyp["box"] * depth,
        "cls": hyp["cls"] * nc / 80 * depth,
        "obj": hyp["obj"] * (imgsz / 640) ** 2 * depth,
    }


def describe_hyp(hyp: Hyp) -> str:
    """Return all hyperparameters on one line."""
    return ", ".join(f"{key}={value:g}" for key, value in hyp.items())
