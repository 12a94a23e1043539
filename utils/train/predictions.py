"""Pictures of what the model finds while it trains, for services that show them by epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.data.packed import PictureTable
from utils.loggers.callbacks import Callbacks
from utils.plots.batches import output_to_target, plot_images

SHOWN = 16  # pictures, the first of the validation
SIDE = 480  # pixels of each
_GRAY = 114


class PredictionPictures(Callbacks):
    """Write predictions/epochN.jpg every so many epochs, at the end of their validation."""

    def __init__(self, every: int, pictures: PictureTable) -> None:
        """Draw every so many epochs what was found in the first of `pictures`, those of the validation."""
        self.every = every
        self.pictures = pictures
        self.folder = Path()
        self.names: dict[int, str] = {}
        self.due: int | None = None  # the epoch whose validation is drawn
        self.found: list[tuple[str, Tensor]] = []

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        self.folder = save_dir / "predictions"

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        self.names = names

    def on_train_epoch_end(self, epoch: int) -> None:
        self.due = epoch if (epoch + 1) % self.every == 0 else None

    def on_val_image_end(self, detections: Tensor, path: str) -> None:
        if self.due is not None and len(self.found) < SHOWN:
            self.found.append((path, detections.clone()))

    def on_val_end(self, result: Any) -> None:
        if self.due is None or not self.found:
            return
        self.folder.mkdir(exist_ok=True)
        images, detections = zip(
            *(_fitted(self.pictures.named(path), rows) for path, rows in self.found), strict=True
        )
        paths = [path for path, _ in self.found]
        target = self.folder / f"epoch{self.due}.jpg"
        plot_images(np.stack(images), output_to_target(detections), paths, target, self.names)
        self.due, self.found = None, []


def _fitted(image: np.ndarray, detections: Tensor) -> tuple[np.ndarray, Tensor]:
    """A picture (3, SIDE, SIDE) RGB at the top left of a gray square, its detections moved with it."""
    scale = SIDE / max(image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    square = np.full((SIDE, SIDE, 3), _GRAY, np.uint8)
    square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    moved = torch.cat((detections[:, :4] * scale, detections[:, 4:]), 1)
    return square[..., ::-1].transpose(2, 0, 1), moved
