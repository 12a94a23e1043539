"""Run detect.py with a stand-in for the model, which always finds the same boxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import torch

from models.backends.base import Backend
from utils.base.options import options_from
from utils.predict.detect_options import DetectOptions
from utils.predict.detector import DetectSummary
from utils.predict.detector import detect as detect_with


class Finder(Backend):
    """Backend with two boxes around the centre of any image: a cat (0.9) and, larger, a dog (0.6)."""

    pt = True

    def __init__(self, stop_at: int = 0) -> None:
        super().__init__("finder.pt", torch.device("cpu"))
        self.names = {0: "cat", 1: "dog/wolf"}
        self.shapes: list[tuple[int, ...]] = []
        self.stop_at = stop_at

    def __call__(self, images: torch.Tensor, augment: bool = False, visualize: Any = None) -> torch.Tensor:
        self.shapes.append(tuple(images.shape))
        if len(self.shapes) == self.stop_at:
            raise KeyboardInterrupt
        if visualize is not None:
            layer = type("Layer", (), {"type": "models.blocks.conv.Conv", "i": 0})
            visualize(layer, images)
        return self.infer(images)

    def infer(self, images: torch.Tensor) -> torch.Tensor:
        batch, _, h, w = images.shape
        rows = [[w / 2, h / 2, 20, 10, 0.9, 1, 0], [w / 2, h / 2, 30, 30, 0.6, 0, 1], [5, 5, 4, 4, 0.1, 1, 0]]
        return torch.tensor([rows] * batch)


class Blind(Finder):
    """Backend without detections."""

    def infer(self, images: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(images), 1, 7)


def detect_in(
    source: Path | str, folder: Path, backend: Finder | None = None, **kwargs: Any
) -> DetectSummary:
    values = {"source": source, "project": str(folder), "imgsz": 64, "device": "cpu", **kwargs}
    return detect_with(options_from(DetectOptions, values), load=lambda _: backend or Finder())


def made(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def frames_of(file: Path) -> tuple[int, float, tuple[int, int]]:
    """Return how many frames of a video can be read, its frames per second, and (width, height)."""
    capture = cv2.VideoCapture(str(file))
    fps = capture.get(cv2.CAP_PROP_FPS)
    size = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT))
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    return count, fps, size
