"""What `detect.py` and `val.py` see of a model, whatever file it came from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from models.backends.metadata import MAX_STRIDE, Metadata
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.ops.boxes import xyxy2xywh

Watch = Callable[[nn.Module, Tensor], None]  # told of each layer and its output

_CPU_BATCH_PIXELS, _MAX_CPU_BATCH = 8 * 320 * 320, 8


def cpu_batch_size(height: int, width: int) -> int:
    """Return the batch size at which PyTorch on a CPU runs images of this size fastest (measured).

    Small images spend much of their time between layers and in Python; a batch of large ones does not fit
    into the cache.
    """
    return max(min(_CPU_BATCH_PIXELS // (height * width), _MAX_CPU_BATCH), 1)


class Backend(ABC):
    """A model ready to run: `images` (B, 3, H, W) in 0-1 -> decoded (B, N, 5 + nc) in float32.

    Attributes:
        stride: the sides of images must be multiples of it.
        names: class names by index.
        device: where images are expected.
        fp16: whether images are expected in half precision.
        pt: a native PyTorch model, which takes any rectangle; others get full squares.
        is_pytorch_model: the same, by its long name.
        batch: the only batch size that the file takes, or None. Others are cut and padded to it.
        imgsz: the only (height, width) that the file takes, or None.
        suppressed: the file thins out its boxes itself.
    """

    pt = False

    def __init__(self, file: str, device: torch.device) -> None:
        self.file = file
        self.device = device
        self.stride = MAX_STRIDE
        self.names: dict[int, str] = {}
        self.fp16 = False
        self.batch: int | None = None
        self.imgsz: tuple[int, int] | None = None
        self.suppressed = False
        self.least_conf = 0.0  # of boxes that a file leaves which thins them out itself

    def adopt(self, meta: Metadata) -> None:
        """Take over what the file says of its model."""
        self.stride, self.names, self.suppressed = meta.stride, meta.names, meta.suppressed
        self.imgsz = meta.imgsz or self.imgsz
        self.batch = meta.batch or self.batch
        self.least_conf = meta.least

    def read_shape(self, shape: Sequence[Any]) -> None:
        """Take the batch and size that a file is fixed to from its input's shape; what is no number is free.

        Raises:
            DataError: the input is no batch of images.
        """
        if len(shape) != 4:
            raise DataError(
                f"--weights {self.file}: no detector: its input has {len(shape)} dimensions, not 4"
            )
        batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in shape)
        height, width = sides[:2] if sides[2] == 3 else sides[1:]
        self.batch = batch
        self.imgsz = (height, width) if height and width else None

    def warn_of_thresholds(self, conf_thres: float) -> None:
        """Tell that boxes which are asked for are gone already."""
        if self.suppressed and conf_thres < self.least_conf:
            LOG.warning(
                f"{self.file} thins out its boxes itself and leaves those above {self.least_conf:g} only, "
                f"whatever --conf-thres {conf_thres:g} says: a mAP of them is not that of the model"
            )

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def is_pytorch_model(self) -> bool:
        """Whether this is a native PyTorch model."""
        return self.pt

    @abstractmethod
    def infer(self, images: Tensor) -> Tensor:
        """Run the model on images of the right size, kind and number."""

    @torch.inference_mode()
    def __call__(self, images: Tensor, augment: bool = False, visualize: Watch | None = None) -> Tensor:
        """Return decoded boxes (B, N, 5 + nc), xywh in pixels of `images`.

        Raises:
            ConfigError: a size that the file does not take, or an option that only .pt files have.
        """
        if augment or visualize:
            flag = "--augment" if augment else "--visualize"
            raise ConfigError(f"{flag} needs a PyTorch model (.pt), not {self.file}")
        height, width = images.shape[2:]
        if self.imgsz is not None and (height, width) != self.imgsz:
            raise ConfigError(
                f"{self.file} takes images of {_size(self.imgsz)} only, not {_size((height, width))}; "
                f"use --imgsz {_flag(self.imgsz)}, or export it with --dynamic or that --imgsz"
            )
        images = images.to(self.device, torch.float16 if self.fp16 else torch.float32)
        if self.batch is None or len(images) == self.batch:
            found = self.infer(images).float()
        else:
            found = torch.cat([self._infer_part(part) for part in images.split(self.batch)])
        return self._decoded(found) if self.suppressed else found

    def warmup(self, shape: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """Run once on an empty image, so that the first real one does not pay for the set-up."""
        self(torch.zeros(shape, device=self.device))

    def name_classes(self, names: dict[int, str] | None) -> None:
        """Take names for a file that holds none: those given, else class0, class1, ..."""
        if self.names:
            return
        if names:
            self.names = dict(names)
            return
        if self.suppressed:
            raise ConfigError(f"{self.file}: holds no class names; give those of its dataset with --data")
        height, width = self.imgsz or (2 * self.stride, 2 * self.stride)
        classes = self(torch.zeros(1, 3, height, width)).shape[2] - 5
        self.names = {index: f"class{index}" for index in range(classes)}

    def _infer_part(self, images: Tensor) -> Tensor:
        """Run at most `batch` images, filled up with empty ones."""
        assert self.batch is not None
        missing = self.batch - len(images)
        if missing:
            images = torch.cat((images, images.new_zeros(missing, *images.shape[1:])))
        return self.infer(images).float()[: self.batch - missing]

    def _decoded(self, rows: Tensor) -> Tensor:
        """What is left after suppression, (B, K, 6) xyxy, score, class -> (B, K, 5 + nc) as a head gives it.

        Suppressed once more with the same thresholds, nothing of it changes.
        """
        numbers = rows[..., 5].long()
        if rows.shape[2] != 6 or int(numbers.max()) >= self.nc:
            raise DataError(f"{self.file}: finds other classes than the {self.nc} that it names")
        classes = torch.nn.functional.one_hot(numbers, max(self.nc, 1))
        return torch.cat((xyxy2xywh(rows[..., :4]), rows[..., 4:5], classes.to(rows)), -1)


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"


def _flag(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}" if size_hw[0] == size_hw[1] else f"{size_hw[0]} {size_hw[1]}"
