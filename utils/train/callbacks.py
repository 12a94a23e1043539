"""Build the callbacks of a run: plots, logging services, user callbacks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.base.log import LOG
from utils.data.image_lists import label_path
from utils.data.packed import PackedImages
from utils.data.shards.index import index_path
from utils.data.shards.table import ShardTable
from utils.data.shards.urls import is_url
from utils.loggers.available import choose, image_interval
from utils.loggers.callbacks import CallbackList, Callbacks
from utils.loggers.logger_process import LoggerProcesses
from utils.plots.batches import output_to_target, plot_images

if TYPE_CHECKING:
    from utils.tasks.task import Task
    from utils.train.distributed import ProcessGroup
    from utils.train.loaders import Loaders
    from utils.train.train_options import TrainOptions


SHOWN = 16  # number of plotted images
SIDE = 480  # pixels of each plotted image
_GRAY = 114


class PredictionImages(Callbacks):
    """Callback that plots detections on validation images to predictions/epochN.jpg, every `every` epochs."""

    def __init__(self, every: int, images: PackedImages) -> None:
        """Plot detections on the first of the validation `images` every `every` epochs."""
        self.every = every
        self.images = images
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
            *(_fitted(self.images.read_by_path(path), rows) for path, rows in self.found), strict=True
        )
        paths = [path for path, _ in self.found]
        target = self.folder / f"epoch{self.due}.jpg"
        plot_images(np.stack(images), output_to_target(detections), paths, target, self.names)
        self.due, self.found = None, []


def _fitted(image: np.ndarray, detections: Tensor) -> tuple[np.ndarray, Tensor]:
    """Place an image at the top left of a gray square, (3, SIDE, SIDE) RGB, and scale its detections."""
    scale = SIDE / max(image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    square = np.full((SIDE, SIDE, 3), _GRAY, np.uint8)
    square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    moved = torch.cat((detections[:, :4] * scale, detections[:, 4:]), 1)
    return square[..., ::-1].transpose(2, 0, 1), moved


def make_callbacks(
    options: TrainOptions,
    task: Task,
    user_callbacks: Sequence[Callbacks],
    process_group: ProcessGroup,
    loaders: Loaders,
) -> CallbackList:
    """Return the callbacks of a run: plots, logging services, the user's own; none on ranks other than 0."""
    if not process_group.is_main:
        return CallbackList()
    own: list[Callbacks] = [] if options.noplots else [task.plots()]
    chosen = choose(options)
    if task.draws_boxes and (every := image_interval(options, chosen)):
        own.append(PredictionImages(every, loaders.val.dataset.image_files))
    if chosen:
        own.append(
            LoggerProcesses(chosen, dataset_files(options, loaders) if options.upload_dataset else None)
        )
    return CallbackList([*own, *user_callbacks])


def dataset_files(options: TrainOptions, loaders: Loaders) -> dict[str, Path]:
    """Return the images and labels of `--upload_dataset`, by their paths below a common folder."""
    sets = {"train": loaders.dataset, "val": loaders.val.dataset}
    chosen = [part.image_files for name, part in sets.items() if options.upload_dataset in (True, name)]
    files = [path for images in chosen for path in _files_of(images)]
    if not files:
        LOG.warning("--upload_dataset: the dataset is already at a URL; nothing is uploaded")
        return {}
    root = os.path.commonpath([path.parent for path in files])
    return {path.relative_to(root).as_posix(): path for path in files}


def _files_of(table: PackedImages) -> Iterator[Path]:
    """Yield images and label files, or shards and their indices, that exist on a local disk."""
    if isinstance(table, ShardTable):
        shards = [shard.info.url for shard in table.shards if not is_url(shard.info.url)]
        files = [Path(file) for url in shards for file in (url, index_path(url))]
    else:
        images = [path.absolute() for path in table]
        files = [*images, *map(label_path, images)]
    yield from filter(Path.is_file, files)
