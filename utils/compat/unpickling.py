"""Let torch.load read checkpoints that hold a model, with its safe default `weights_only=True`.

Importing this module registers the classes that such files consist of. torch then makes objects of these
classes, and calls no function that a file names except their constructors; a file with another class is
refused as before.
"""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from torch import nn

import models.common
from models.attention import lska, lska_blocks, van
from models.blocks import conv, csp, pool
from models.blocks.conv import Conv
from models.yolo import ClassificationModel, Detect, DetectionModel, Segment, SegmentationModel
from utils.compat import augment
from utils.native.norm_silu import PackedConvolution
from utils.tasks.classify.head import Classify
from utils.tasks.segment.head import Proto

_LAYERS = (
    *(nn.Sequential, nn.ModuleList, nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d, nn.Linear, nn.Identity),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Upsample, nn.ZeroPad2d, nn.Dropout, nn.Dropout2d),
    *(nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU, nn.Sigmoid, nn.LayerNorm),
)
_MODULES_OF_BLOCKS = (models.common, conv, csp, pool, lska, lska_blocks, van)
_BLOCKS = {
    block
    for module in _MODULES_OF_BLOCKS
    for block in vars(module).values()
    if isinstance(block, type) and issubclass(block, nn.Module) and block is not nn.Module
}
# Numbers that training loops save, such as the best fitness.
_NUMPY = (np.ndarray, np.dtype, np.float64, np.float32, np.int64, type(np.dtype("f8")), type(np.dtype("f4")))
_RECONSTRUCT: Any = np.zeros(1).__reduce__()[0], np.float64(0).__reduce__()[0]
CLASSES = (*_LAYERS, *_BLOCKS, Detect, DetectionModel, Segment, SegmentationModel, ClassificationModel)


def _getattr(owner: object, name: str) -> object:
    """Return the method that files of segmentation models and fused layers name, and no other attribute."""
    allowed = owner is Detect and name == "forward" or isinstance(owner, Conv) and name == "forward_fuse"
    if not allowed:
        raise UnpicklingError(f"the file reads the attribute {name!r} of {owner!r}, which is not allowed")
    return getattr(owner, name)


class _Transform:
    """Stands for the transforms of torchvision in classification files of v6.2, which nothing here uses."""


_TORCHVISION = "torchvision.transforms.transforms"
# The transforms in classification files; ours stand for those of torchvision, whose import takes long.
_TRANSFORMS = {
    (augment.Compose, f"{_TORCHVISION}.Compose"),
    (augment.Normalize, f"{_TORCHVISION}.Normalize"),
    (augment.CenterCrop, "utils.augmentations.CenterCrop"),
    (augment.ToTensor, "utils.augmentations.ToTensor"),
    *((_Transform, f"{_TORCHVISION}.{name}") for name in ("Resize", "CenterCrop", "ToTensor")),
}

torch.serialization.add_safe_globals([*CLASSES, Proto, Classify, set, PackedConvolution])
torch.serialization.add_safe_globals([*_NUMPY, type(np.dtype("i8")), *_RECONSTRUCT])
torch.serialization.add_safe_globals(
    [(PurePosixPath, "pathlib.PosixPath"), (PureWindowsPath, "pathlib.WindowsPath")]  # of any system
)
torch.serialization.add_safe_globals(
    [(_getattr, f"{module}.getattr") for module in ("builtins", "__builtin__")]
)
torch.serialization.add_safe_globals([*_TRANSFORMS])
torch.serialization.add_safe_globals([(DetectionModel, "models.yolo.Model")])  # its name until v6.1
