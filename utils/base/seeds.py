"""Random number generators derived from keys such as (seed, epoch, index)."""

from __future__ import annotations

import os

import numpy as np

_STEP_STREAM = 2  # random number stream of `seed_step`, separate from those of images and their sizes


def generator(*key: int) -> np.random.Generator:
    """Return an independent generator for a key such as (seed, epoch, index) of non-negative integers."""
    return np.random.default_rng(np.random.SeedSequence(key))


def seed_step(seed: int, epoch: int, step: int, rank: int = 0) -> None:
    """Seed the global generators for one training step of one process.

    Drop path, dropout and blocks of users draw from these. What they draw then depends on nothing that
    happened before: not on the workers of the loader, and not on whether the run was resumed.
    """
    seed_everything(int(generator(seed, epoch, step, rank, _STEP_STREAM).integers(2**63)))


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
