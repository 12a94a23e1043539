"""Draw what a run trains on and how it went: the images that every run folder gets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.loggers.callbacks import Callbacks
from utils.plots.batches import plot_images
from utils.plots.labels import plot_labels
from utils.plots.results import plot_results

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

DRAWN_BATCHES = 3


class ImageLogger(Callbacks):
    """Write labels.jpg, labels_correlogram.jpg, train_batch0-2.jpg and results.png."""

    def __init__(self) -> None:
        self.folder = Path()
        self.names: dict[int, str] = {}

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        self.folder = save_dir

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        self.names = names
        plot_labels(labels, names, self.folder)

    def on_train_batch_end(self, step: int, images: Tensor, targets: Tensor, paths: Sequence[str]) -> None:
        if step < DRAWN_BATCHES:
            plot_images(images, targets, paths, self.folder / f"train_batch{step}.jpg", self.names)

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        plot_results(save_dir / "results.csv")
