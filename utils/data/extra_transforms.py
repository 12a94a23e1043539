"""Rare blurs, grays and contrasts by Albumentations, for those who have installed it."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from utils.base.log import LOG

PROBABILITY = 0.01  # of each
_KINDS = ("Blur", "MedianBlur", "ToGray", "CLAHE")


class ExtraTransforms:
    """Transforms of colours and sharpness, each with its own small chance; boxes stay where they are.

    We draw the chances: Albumentations' `Compose`, once seeded, applies either all or none.
    """

    def __init__(self, transforms: Sequence[Any], probability: float = PROBABILITY) -> None:
        self.transforms = transforms  # that always act
        self.probability = probability

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        chosen = rng.random(len(self.transforms)) < self.probability
        seeds = rng.integers(2**31, size=len(self.transforms)).tolist()
        for transform, is_chosen, seed in zip(self.transforms, chosen, seeds, strict=True):
            if is_chosen:
                with _seeded(transform, seed):
                    image = transform(image=image)["image"]
        return image


def load_extra_transforms(prefix: str = "") -> ExtraTransforms | None:
    """Make the transforms; None if Albumentations is not installed or too old."""
    try:
        import albumentations as album
    except ImportError:
        return None
    try:
        transforms = [getattr(album, kind)(p=1.0) for kind in _KINDS]
    except (AttributeError, TypeError, ValueError) as error:
        LOG.warning(f"{prefix}albumentations {getattr(album, '__version__', '')} is not used: {error}")
        return None
    LOG.info(f"{prefix}albumentations: {', '.join(f'{kind}(p={PROBABILITY})' for kind in _KINDS)}")
    return ExtraTransforms(transforms)


@contextmanager
def _seeded(transform: Any, seed: int) -> Iterator[None]:
    """Seed a transform; old versions draw from the global generators, which are put back afterwards."""
    if hasattr(transform, "set_random_seed"):
        transform.set_random_seed(seed)
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
