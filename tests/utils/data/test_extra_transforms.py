"""Transforms by Albumentations, replaced by fakes, as it need not be installed."""

import random
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.utils.data.image_files import make_set
from utils.base.yaml_io import read_yaml
from utils.data.augment import ExtraTransforms, load_extra_transforms
from utils.data.dataset import DetectionDataset

HYP = read_yaml(Path(__file__).parents[3] / "data/hyps/hyp.scratch-low.yaml")
IMAGE = np.zeros((8, 8, 3), np.uint8)


class Modern:
    """Transform with a generator of its own, as in version 1.4.19 and later."""

    def __init__(self, p: float = 1.0) -> None:
        self.p = p

    def set_random_seed(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        return {"image": image + np.uint8(self.random.randint(1, 50))}


class Old:
    """Transform that draws from the global generators."""

    def __init__(self, p: float = 1.0) -> None:
        self.p = p

    def __call__(self, image: np.ndarray) -> dict[str, Any]:
        return {"image": image + np.uint8(random.randint(1, 50) + np.random.randint(50))}


@pytest.mark.parametrize("kind", [Modern, Old])
def test_results_depend_on_the_generator_only(kind: type) -> None:
    extra = ExtraTransforms([kind(), kind()], probability=0.5)
    forward = [extra(np.random.default_rng(seed), IMAGE) for seed in range(20)]
    state = random.getstate(), str(np.random.get_state())
    backward = [extra(np.random.default_rng(seed), IMAGE) for seed in reversed(range(20))][::-1]
    assert all((a == b).all() for a, b in zip(forward, backward, strict=True))
    assert len({image.tobytes() for image in forward}) > 8
    assert (random.getstate(), str(np.random.get_state())) == state


def test_each_transform_is_drawn_independently() -> None:
    extra = ExtraTransforms([Modern(), Modern()], probability=0.5)
    unchanged = sum(not extra(np.random.default_rng(seed), IMAGE).any() for seed in range(1000))
    assert 200 < unchanged < 300  # a quarter, not a half


def test_training_uses_what_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = make_set(tmp_path, 2)
    monkeypatch.setitem(sys.modules, "albumentations", None)
    assert load_extra_transforms() is None
    fake = SimpleNamespace(Blur=Modern, MedianBlur=Modern, ToGray=Modern, CLAHE=Modern)
    monkeypatch.setitem(sys.modules, "albumentations", fake)
    data = DetectionDataset([images], 64, augment=True, hyp=HYP)
    assert data._extra is not None
    data._extra.probability = 1.0
    changed = data[0].image
    data._extra.probability = 0.0
    assert (changed != data[0].image).any()
    assert DetectionDataset([images], 64)._extra is None


def test_an_old_version_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "albumentations", SimpleNamespace(Blur=Modern))
    assert load_extra_transforms() is None
