"""The dataloaders of a run, and the weighted sampling of --image-weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.data.dataset_yaml import DataSpec
from utils.data.loader import Loader, Samples, Share, make_loader
from utils.tasks.task import Task
from utils.train.distributed import ProcessGroup
from utils.train.hyp import Hyp
from utils.train.train_options import TrainOptions


@dataclass(frozen=True)
class Loaders:
    """Dataloaders for training and validation, of the same image size."""

    train: Loader
    val: Loader
    dataset: Samples  # behind `train`
    imgsz: int
    stride: int
    batch_size: int

    def close(self) -> None:
        """End the worker processes."""
        self.train.close()
        self.val.close()


def make_loaders(
    options: TrainOptions,
    task: Task,
    hyp: Hyp,
    data: DataSpec,
    model: Any,
    process_group: ProcessGroup,
    *,
    pin_memory: bool = False,
) -> Loaders:
    """Make the loaders; the batch size is at most the number of training images.

    Several processes share each batch in training, and whole batches in validation.

    Args:
        options: of the train script.
        task: which makes the datasets.
        hyp: hyperparameters of the augmentations.
        data: the dataset.
        model: to be trained.
        process_group: whose ranks share the batches.
        pin_memory: put batches into page-locked memory, for CUDA.

    Raises:
        DataError: a split without usable images.
    """
    imgsz, stride = task.image_size(options, int(model.stride.max()))
    with process_group.main_first():  # rank 0 writes the label caches, which the others read
        train_set, val_set = task.make_datasets(options, hyp, data, model, imgsz, stride)
    batch_size = min(options.batch_size, len(train_set))
    train_loader = make_loader(
        train_set,
        options.batch_size if options.rect else batch_size,
        workers=options.workers,
        shuffle=True,
        seed=options.seed,
        quad=options.quad,
        pin_memory=pin_memory,
        share=Share(process_group.rank, process_group.world),
        buffer=options.shuffle_buffer,
    )
    share = Share(process_group.rank, process_group.world, whole_batches=True)
    val_loader = make_loader(
        val_set, batch_size * 2, workers=options.workers, pin_memory=pin_memory, share=share
    )
    return Loaders(train_loader, val_loader, train_set, imgsz, stride, batch_size)


def update_image_weights(loaders: Loaders, nc: int, maps: Sequence[float]) -> None:
    """Sample images of classes that are rare, or that the latest validation found hard, more often.

    Args:
        loaders: of the run.
        nc: number of classes.
        maps: mAP50-95 of each class in the latest validation, (nc,); empty before the first.
    """
    hard = np.array(maps) if len(maps) else None
    weights = image_weights(loaders.dataset.labels, nc, hard)
    loaders.train.set_weights(weights if weights.sum() > 0 else None)  # all zero: no class is hard any more


def class_weights(labels: Sequence[np.ndarray], nc: int) -> np.ndarray:
    """Return the inverse frequency of each class, (nc,) with sum 1; an absent class counts as one label.

    Args:
        labels: (n, 5) per image, class first.
        nc: number of classes.
    """
    classes = [rows[:, 0].astype(int) for rows in labels]
    counts = np.bincount(np.concatenate([np.zeros(0, int), *classes]), minlength=nc)
    inverse = 1 / np.maximum(counts, 1)
    return inverse / inverse.sum()


def image_weights(labels: Sequence[np.ndarray], nc: int, maps: np.ndarray | None = None) -> np.ndarray:
    """Return the weight of each image, (N,): the sum over its objects of how rare and hard their class is.

    Args:
        labels: (n, 5) per image, class first.
        nc: number of classes.
        maps: mAP50-95 of each class at the latest validation, (nc,); None before the first.
    """
    weights = class_weights(labels, nc)
    if maps is not None:
        weights = weights * (1 - maps) ** 2
    return np.array([weights[rows[:, 0].astype(int)].sum() for rows in labels])
