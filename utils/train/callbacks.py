"""Build the callbacks of a run: plots, logging services, user callbacks."""

from __future__ import annotations

import os
from argparse import Namespace
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
from utils.loggers.plot_logger import ImageLogger
from utils.plots.batches import output_to_target, plot_images

if TYPE_CHECKING:
    from utils.train.distributed import ProcessGroup
    from utils.train.setup import Loaders


SHOWN = 16  # images, the first of the validation
SIDE = 480  # pixels of each
_GRAY = 114


class PredictionImages(Callbacks):
    """Write predictions/epochN.jpg every so many epochs, at the end of their validation."""

    def __init__(self, every: int, images: PackedImages) -> None:
        """Draw every so many epochs what was found in the first of `images`, those of the validation."""
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
            *(_fitted(self.images.named(path), rows) for path, rows in self.found), strict=True
        )
        paths = [path for path, _ in self.found]
        target = self.folder / f"epoch{self.due}.jpg"
        plot_images(np.stack(images), output_to_target(detections), paths, target, self.names)
        self.due, self.found = None, []


def _fitted(image: np.ndarray, detections: Tensor) -> tuple[np.ndarray, Tensor]:
    """An image (3, SIDE, SIDE) RGB at the top left of a gray square, its detections moved with it."""
    scale = SIDE / max(image.shape[:2])
    height, width = (max(round(side * scale), 1) for side in image.shape[:2])
    square = np.full((SIDE, SIDE, 3), _GRAY, np.uint8)
    square[:height, :width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    moved = torch.cat((detections[:, :4] * scale, detections[:, 4:]), 1)
    return square[..., ::-1].transpose(2, 0, 1), moved


def make_callbacks(
    opt: Namespace, user_callbacks: Sequence[Callbacks], process_group: ProcessGroup, loaders: Loaders
) -> CallbackList:
    """The callbacks of a run: images, services, and the caller's own; one process tells them."""
    if not process_group.leads:
        return CallbackList()
    own: list[Callbacks] = [] if opt.noplots else [ImageLogger()]
    chosen = choose(opt)
    if every := image_interval(opt, chosen):
        own.append(PredictionImages(every, loaders.val.dataset.image_files))
    if chosen:
        own.append(LoggerProcesses(chosen, dataset_files(opt, loaders) if opt.upload_dataset else None))
    return CallbackList([*own, *user_callbacks])


def dataset_files(opt: Namespace, loaders: Loaders) -> dict[str, Path]:
    """The images and labels that `--upload_dataset` means, by their names below a common folder."""
    sets = {"train": loaders.dataset, "val": loaders.val.dataset}
    chosen = [part.image_files for name, part in sets.items() if opt.upload_dataset in (True, name)]
    files = [path for images in chosen for path in _files_of(images)]
    if not files:
        LOG.warning("--upload_dataset: the set lies at an address already; nothing is uploaded")
        return {}
    root = os.path.commonpath([path.parent for path in files])
    return {path.relative_to(root).as_posix(): path for path in files}


def _files_of(table: PackedImages) -> Iterator[Path]:
    """Images and label files, or shards and their indices, as far as they are on a disk."""
    if isinstance(table, ShardTable):
        shards = [shard.info.url for shard in table.shards if not is_url(shard.info.url)]
        files = [Path(file) for url in shards for file in (url, index_path(url))]
    else:
        images = [path.absolute() for path in table]
        files = [*images, *map(label_path, images)]
    yield from filter(Path.is_file, files)
