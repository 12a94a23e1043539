"""Golden numbers of the original (tests/golden), and the inputs for which they were recorded."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared (weights, images) is absent")


@cache
def golden(name: str) -> Any:
    """Load the numbers of `tests/golden/NAME.json[.gz]`."""
    path = HERE / "golden" / f"{name}.json"
    if path.exists():
        return json.loads(path.read_text())
    return json.loads(gzip.decompress(path.with_suffix(".json.gz").read_bytes()))


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Load the arrays of `tests/golden/NAME.npz`, by key."""
    with np.load(HERE / "golden" / f"{name}.npz") as file:
        return {key: file[key] for key in file.files}


def pattern_image(height: int, width: int, k: int = 0) -> np.ndarray:
    """Make a smooth (height, width, 3) uint8 image, as the README of the golden numbers defines it."""
    y, x, c = np.ogrid[:height, :width, :3]
    value = np.abs((3 * y + 5 * x + 64 * c + k) % 512 - 256) + (x * y) % 17
    return np.clip(value, 0, 255).astype(np.uint8)


def fill(module: torch.nn.Module, tag: int) -> None:
    """Set every weight from its state_dict key alone, as the README of the golden numbers defines it."""
    for key, value in module.state_dict().items():
        last = key.rsplit(".", 1)[-1]
        if not value.dtype.is_floating_point or last.startswith("anchor"):
            continue
        a = np.random.default_rng([zlib.crc32(key.encode()), tag]).standard_normal(value.numel())
        if last == "running_var":
            a = 1 + 0.5 * np.tanh(a)
        elif last == "running_mean":
            a = 0.1 * a
        elif value.ndim == 1 and last == "weight":
            a = 1 + 0.25 * np.tanh(a)
        elif last.endswith("bias") or value.ndim == 1:
            a = 0.1 * a
        else:
            a = a * math.sqrt(1.5 / (value.numel() // value.shape[0]))
        with torch.no_grad():
            value.copy_(torch.from_numpy(a.astype(np.float32)).view(value.shape))


def to_tensor(bgr: np.ndarray) -> torch.Tensor:
    """Convert uint8 NHWC BGR to float NCHW RGB in 0-1, independently of the code under test."""
    return torch.from_numpy(np.ascontiguousarray(bgr[..., ::-1].transpose(0, 3, 1, 2))).float() / 255
