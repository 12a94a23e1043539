"""The ranges in which an evolution searches for hyperparameters."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gene:
    """Bounds of a hyperparameter, and the gain of its mutations; 0: never mutated by the genetic search."""

    low: float
    high: float
    gain: float = 1.0
    augmentation: bool = False  # the population search changes only these


# Of models with boxes: bounds and gains of the original.
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
    "iou_t": Gene(0.1, 0.7, 0),  # has no effect
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
