"""Random number generators derived from keys such as (seed, epoch, index)."""

from __future__ import annotations

import os

import numpy as np


def generator(*key: int) -> np.random.Generator:
    """Return an independent generator for a key such as (seed, epoch, index) of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(key))


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed Python, numpy and torch; `deterministic` also forbids nondeterministic CUDA kernels."""
    import random

    import torch

    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
