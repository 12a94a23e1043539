"""Plots of a classification training: the first batch, and the curves of results.csv."""

from __future__ import annotations

from typing import TYPE_CHECKING

from utils.loggers.callbacks import PlotLogger

if TYPE_CHECKING:
    import numpy as np

    from utils.data.loader import Batch

SHOWN = 25  # images of a mosaic, as YOLOv5 has it


class ClassifyPlots(PlotLogger):
    """Callback that writes train_images.jpg and results.png."""

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        self.names = names

    def on_train_batch(self, step: int, batch: Batch) -> None:
        if step == 0:
            from utils.plots.batches import plot_images

            captions = [self.names[index] for index in batch.targets[:SHOWN, 1].int().tolist()]
            images, file = batch.images[:SHOWN], self.folder / "train_images.jpg"
            self.painter.draw(plot_images, images, (), captions, file, max_subplots=SHOWN)
