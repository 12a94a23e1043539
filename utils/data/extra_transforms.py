"""Rare blurs, grays and contrasts by Albumentations, for those who have installed it."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from utils.base.log import LOG

PROBABILITY = 0.01  # of each

Transform = Callable[[np.random.Generator, np.ndarray], np.ndarray]


class ExtraTransforms:
    """Albumentations with the draws of one sample: colours and sharpness only, boxes stay where they are."""

    def __init__(self, compose: Any) -> None:
        self.compose = compose

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        seed = int(rng.integers(2**31))
        if hasattr(self.compose, "set_random_seed"):
            self.compose.set_random_seed(seed)
            return self.compose(image=image)["image"]
        with _global_seed(seed):
            return self.compose(image=image)["image"]


def load_extra_transforms(prefix: str = "") -> ExtraTransforms | None:
    """Make the transforms; None if Albumentations is not installed or too old."""
    try:
        import albumentations as album
    except ImportError:
        return None
    try:
        transforms = [
            kind(p=PROBABILITY) for kind in (album.Blur, album.MedianBlur, album.ToGray, album.CLAHE)
        ]
        compose = album.Compose(transforms)
    except (AttributeError, TypeError, ValueError) as error:
        LOG.warning(f"{prefix}albumentations {getattr(album, '__version__', '')} is not used: {error}")
        return None
    LOG.info(f"{prefix}albumentations: {', '.join(f'{type(t).__name__}(p={t.p})' for t in transforms)}")
    return ExtraTransforms(compose)


@contextmanager
def _global_seed(seed: int) -> Iterator[None]:
    """Seed the global generators, which old versions draw from, and put them back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
