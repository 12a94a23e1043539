"""Input images of an export: the example batch, and the calibration images of INT8."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.paths import ROOT
from utils.data.dataset_yaml import read_data_yaml
from utils.data.image_lists import list_images
from utils.data.images import IMAGE_SUFFIXES, read_image
from utils.data.letterbox import letterbox, to_tensor


def example_images(
    size_hw: tuple[int, int], batch_size: int, folder: Path = ROOT / "data" / "images"
) -> Tensor:
    """Return a batch (B, 3, H, W) in 0-1: the first image of `folder`, or a pattern if it has none."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    return _batch(read_image(files[0]) if files else _pattern(), size_hw, batch_size)


def load_calibration_images(
    data: str, size_hw: tuple[int, int], count: int, batch_size: int = 1
) -> Callable[[], Sequence[Tensor]]:
    """Return a function that loads evenly spaced training images of a dataset, when it is first called.

    Args:
        data: dataset yaml, which is read now, so that an error in it is reported before the export.
        size_hw: size that images are letterboxed to.
        count: maximum number of images.
        batch_size: number of copies of each image, for a network with a fixed batch size.

    Returns:
        A function that returns batches (B, 3, H, W) in 0-1. It raises DataError if no image can be read.
    """
    spec = read_data_yaml(data)

    @cache
    def images() -> Sequence[Tensor]:
        files = list_images([source for source in spec.train if isinstance(source, Path)])
        indices = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
        batches = []
        for index in indices:
            try:
                batches.append(_batch(read_image(files[int(index)]), size_hw, batch_size))
            except (DataError, OSError) as error:
                LOG.warning(f"not used for calibration: {error}")
        if not batches:
            raise DataError(f"--data {data}: none of its images can be read")
        LOG.info(f"calibrating with {len(batches)} images of {data}")
        return batches

    return images


def _batch(image: np.ndarray, size_hw: tuple[int, int], batch_size: int) -> Tensor:
    """Letterbox an image (H, W, 3) and repeat it: a contiguous batch (B, 3, H, W) in 0-1."""
    boxed = letterbox(image, size_hw, auto=False)[0]
    return to_tensor([boxed], torch.device("cpu")).contiguous().repeat(batch_size, 1, 1, 1)


def _pattern() -> np.ndarray:
    """Draw an image (480, 640, 3) of circles on a colour gradient."""
    y, x = np.mgrid[:480, :640]
    image = np.stack((x * 255 // 639, y * 255 // 479, (x + y) * 255 // 1118), -1).astype(np.uint8)
    for index in range(6):
        cv2.circle(image, (60 + 100 * index, 240), 20 + 8 * index, (250 - 40 * index, 30, 40 * index), -1)
    return image
