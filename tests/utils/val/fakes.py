"""Labelled batches and a fake model for the tests of validation."""

from __future__ import annotations

import torch
from torch import Tensor

from utils.data.loader import Batch

NAMES = {0: "cell", 1: "plate", 2: "rod"}
SIDE = 64


def batch(rows: list[list[float]], images: int = 2, first: int = 0, scale: float = 1.0) -> Batch:
    """Make images of 64 px whose originals have 64 / `scale` px; `rows` are image, class, xywhn."""
    native = (round(SIDE / scale), round(SIDE / scale))
    return Batch(
        torch.full((images, 3, SIDE, SIDE), 100, dtype=torch.uint8),
        torch.tensor(rows, dtype=torch.float32).reshape(-1, 6),
        [f"/data/images/{first + index:012d}.jpg" for index in range(images)],
        [(native, ((scale, scale), (0.0, 0.0)))] * images,
    )


LABELS = [[0, 0, 0.3, 0.3, 0.25, 0.25], [0, 1, 0.7, 0.7, 0.3, 0.2], [1, 0, 0.5, 0.5, 0.5, 0.5]]


class FakeModel(torch.nn.Module):
    """A model that returns given boxes: for each batch rows of image, class, xywhn, score."""

    def __init__(self, detections: list[list[list[float]]], nc: int = len(NAMES)) -> None:
        super().__init__()
        self.detections = detections
        self.nc = nc
        self.calls = 0
        self.inputs: list[Tensor] = []

    def forward(self, images: Tensor, augment: bool = False) -> tuple[Tensor, list[Tensor]]:
        self.inputs.append(images)
        decoded = torch.zeros(len(images), 8, 5 + self.nc)
        used = [0] * len(images)
        for index, kind, x, y, w, h, score in self.detections[self.calls]:
            row = decoded[int(index), used[int(index)]]
            row[:5] = torch.tensor([x * SIDE, y * SIDE, w * SIDE, h * SIDE, 1.0])
            row[5 + int(kind)] = score
            used[int(index)] += 1
        self.calls += 1
        return decoded, [torch.ones(len(images), 3, 2, 2, 5 + self.nc)]


def as_detections(rows: list[list[float]], score: float = 0.9) -> list[list[float]]:
    """Return label rows as detections."""
    return [[*row, score - 0.01 * index] for index, row in enumerate(rows)]
