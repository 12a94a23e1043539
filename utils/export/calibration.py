"""Images that tell a quantiser which values to expect."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.data.dataset_yaml import read_data_yaml
from utils.data.image_lists import list_images
from utils.data.images import read_image
from utils.data.letterbox import letterbox


def load_calibration_images(
    data: str, size_hw: tuple[int, int], count: int, batch: int = 1
) -> Callable[[], Sequence[Tensor]]:
    """What gives, when asked the first time, evenly chosen training images of a dataset.

    Args:
        data: its yaml.
        size_hw: what they are letterboxed to.
        count: at most so many.
        batch: how often each is repeated, for a network that takes no other number.

    Returns:
        A function that returns images (batch, 3, H, W) in 0-1. It raises DataError if none can be read.
    """

    spec = read_data_yaml(data)  # at once: a mistake is told before hours of work

    @cache
    def images() -> Sequence[Tensor]:
        files = list_images([source for source in spec.train if isinstance(source, Path)])
        chosen = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
        found = []
        for index in chosen:
            try:
                found.append(_tensor(read_image(files[int(index)]), size_hw).repeat(batch, 1, 1, 1))
            except (DataError, OSError) as error:
                LOG.warning(f"not used for calibration: {error}")
        if not found:
            raise DataError(f"--data {data}: none of its images can be read")
        LOG.info(f"calibrating with {len(found)} images of {data}")
        return found

    return images


def _tensor(image: np.ndarray, size_hw: tuple[int, int]) -> Tensor:
    boxed = letterbox(image, size_hw, auto=False)[0]
    rgb = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
    return torch.from_numpy(rgb)[None].float() / 255
