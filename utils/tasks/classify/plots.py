"""Plots of a classification training: the first batches, and the curves of results.csv."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from utils.loggers.callbacks import Callbacks

if TYPE_CHECKING:
    import numpy as np

    from utils.data.loader import Batch

SHOWN = 25  # images of a mosaic, as YOLOv5 has it


class ClassifyPlots(Callbacks):
    """Callback that writes train_images.jpg and results.png."""

    def __init__(self) -> None:
        self.folder = Path()
        self.names: dict[int, str] = {}

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        self.folder = save_dir

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        self.names = names

    def on_train_batch(self, step: int, batch: Batch) -> None:
        if step == 0:
            from utils.plots.batches import plot_images

            captions = [self.names[index] for index in batch.targets[:SHOWN, 1].int().tolist()]
            plot_images(
                batch.images[:SHOWN], (), captions, self.folder / "train_images.jpg", max_subplots=SHOWN
            )

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        from utils.plots.results import plot_results

        plot_results(save_dir / "results.csv")
