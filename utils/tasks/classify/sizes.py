"""Check the image size of a classification model before it runs."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.ops.meta import on_meta

if TYPE_CHECKING:
    from models.backends.base import Backend


def check_training_size(model: nn.Module, imgsz: int, images: int, batch_size: int) -> None:
    """Run a model on the smallest batch of an epoch, without computing anything.

    Batch norm needs more than one value of each channel, which a single image with a map of one cell lacks;
    some models of torchvision take one size only.

    Args:
        model: in any mode.
        imgsz: side of the images, pixels.
        images: number of training images.
        batch_size: of all processes together.

    Raises:
        ConfigError: the images are too small, or not of the size that the model takes.
    """
    smallest = images % batch_size or min(batch_size, images)
    share = max(smallest // int(os.environ.get("WORLD_SIZE", "1")), 1)
    problem = f"the model cannot be trained on a batch of {share} at this size; change it or --batch-size"
    training = model.training
    batch = torch.empty(share, 3, imgsz, imgsz, device="meta", dtype=_dtype(model))
    try:
        _run(partial(on_meta, model.train()), batch, problem)
    finally:
        model.train(training)


def check_size(backend: Backend, imgsz: int) -> None:
    """Check that a model can run at a size; warn if it is not that of its training.

    Raises:
        ConfigError: the images are too small, or not of the size that the model takes.
    """
    if backend.pt:
        dtype = torch.float16 if backend.fp16 else torch.float32
        images = torch.zeros(1, 3, imgsz, imgsz, device=backend.device, dtype=dtype)
        with torch.inference_mode():
            _run(backend, images, f"{backend.file} cannot run at this size")
    trained = backend.trained_imgsz
    if trained and trained != imgsz:
        LOG.warning(
            f"{backend.file} was trained at {trained} px and runs at {imgsz} px, where it may be less "
            f"accurate: try --imgsz {trained}"
        )


def _run(model: Callable[[Tensor], Any], images: Tensor, problem: str) -> None:
    try:
        model(images)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"--imgsz {images.shape[-1]}: {problem} ({reason})") from error


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)
