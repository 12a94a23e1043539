"""A detector that takes images as they are: any kind, any size, one or many; results in their pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.autoshape.detections import Detections
from models.autoshape.inputs import load_images
from models.backends.base import Backend, cpu_batch_size
from models.backends.pytorch import PyTorchBackend
from models.weights import Ensemble
from models.yolo import DetectionModel
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.names import class_names
from utils.base.timing import STAGES, Stopwatch
from utils.data.letterbox import letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression

__all__ = ["AutoShape", "Detections"]


class AutoShape(nn.Module):
    """Find objects in files, addresses, PIL images, arrays, or a list of these: `model("bus.jpg")`.

    Args:
        model: what `models.backends.load_backend` returns, or a DetectionModel.

    Attributes:
        conf, iou: thresholds of confidence and overlap.
        agnostic: boxes of different classes suppress each other, too.
        multi_label: a box may have several classes.
        classes: the only class numbers to report; None for all.
        max_det: most boxes of an image.
        amp: mixed precision, on a GPU.
        private_addresses: download images from this machine and its network, too, not only from public hosts.
        model: the backend; its `model` is the network, if it came from a .pt file.
        names: class names by number; may be replaced.
        stride: sides of the network's input are multiples of it.

    Shape:
        A tensor (B, 3, H, W) in 0-1 goes straight through the network, and out comes what that returns:
        (decoded (B, N, 5 + nc), logits) of a .pt file, decoded alone of others. Images give `Detections`.
    """

    conf = 0.25
    iou = 0.45
    agnostic = False
    multi_label = False
    classes: Sequence[int] | None = None
    max_det = 1000
    amp = False
    private_addresses = False

    def __init__(self, model: Backend | nn.Module) -> None:
        super().__init__()
        if isinstance(model, DetectionModel | Ensemble):
            model = PyTorchBackend.from_model(model)
        if not isinstance(model, Backend):
            raise ConfigError(f"AutoShape: a backend or DetectionModel is needed, not {type(model).__name__}")
        self.model = model
        if isinstance(model, PyTorchBackend):
            self.net = model.model  # known to `parameters`, `to`, `state_dict`; other files are no modules
        self.names: Any = model.names
        self.stride = model.stride
        self.eval()

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.model.device

    def to(self, *args: Any, **kwargs: Any) -> AutoShape:
        """Move the network as `nn.Module.to` does; an exported file stays where it was opened."""
        if not self.model.pt:
            LOG.warning(f"{self.model.file} stays on {self.device}: choose with device= when it is opened")
        super().to(*args, **kwargs)
        return self

    def forward(
        self, ims: Any, size: int | Sequence[int] = 640, augment: bool = False, profile: bool = False
    ) -> Any:
        """Find objects.

        Args:
            ims: one image or a list of them, of any kinds; arrays are RGB. A tensor (B, 3, H, W) is
                special: see `Shape` above.
            size: pixels of the longer side in the network; (height, width) for files that take one size.
            augment: look three times, as is, smaller, and mirrored; only .pt files.
            profile: taken for the original's sake; times are always measured.

        Raises:
            ConfigError: something that is no image, or an option that the file does not have.
            DataError: an image that is missing or damaged.
        """
        if isinstance(ims, Tensor) and ims.ndim == 4:
            return self._straight(ims, augment)
        with torch.no_grad():
            return self._find(list(ims) if isinstance(ims, list | tuple) else [ims], size, augment)

    def _straight(self, images: Tensor, augment: bool) -> Any:
        backend = self.model
        if not isinstance(backend, PyTorchBackend):
            return backend(images, augment=augment)
        images = images.to(backend.device, torch.float16 if backend.fp16 else torch.float32)
        with self._precision():
            return backend.model(images, augment=augment)

    def _find(self, items: list[Any], size: int | Sequence[int], augment: bool) -> Detections:
        self._check(items)
        reading, inference, suppression = clocks = [Stopwatch(self.device) for _ in STAGES]
        with reading:
            loaded = load_images(items, self.private_addresses)
            images = [item.rgb for item in loaded]
            shape = self._shape(images, size)
        found: list[Tensor] = []
        for part in self._parts(images, shape):
            with reading:
                fitted = [letterbox(image, shape, auto=False)[0] for image in part]
                batch = to_tensor(fitted, self.device, self.model.fp16, rgb=True)
            with inference, self._precision():
                decoded = self.model(batch, augment=augment)
            with suppression:
                rows = self._thin_out(decoded)
                for boxes, image in zip(rows, part, strict=True):
                    scale_boxes(shape, boxes[:, :4], image.shape[:2])
                found += rows
        files = [item.file for item in loaded]
        names = class_names(self.names)
        return Detections(images, found, files, clocks, names, (len(images), 3, *shape))

    def _thin_out(self, decoded: Tensor) -> list[Tensor]:
        classes = [self.classes] if isinstance(self.classes, int) else self.classes
        if not all(isinstance(kind, int) for kind in classes or ()):
            raise ConfigError(f"AutoShape: classes {classes}: expected class numbers, such as [0, 2]")
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise ConfigError(f"AutoShape: {name} {value}: a number from 0 to 1 is needed")
        return non_max_suppression(
            decoded,
            self.conf,
            self.iou,
            classes,
            self.agnostic,
            self.multi_label,
            max_det=self.max_det,
        )

    def _check(self, items: list[Any]) -> None:
        if not items:
            raise DataError("AutoShape: the list of images is empty")
        if not isinstance(self.model, PyTorchBackend):
            return
        if self.model.model.training:
            raise ConfigError("AutoShape: the model is in training mode; call model.eval() first")
        if (channels := self.model.model.yaml.get("ch", 3)) != 3:
            raise ConfigError(
                f"AutoShape: the model takes {channels} channels, images have 3; give a tensor "
                f"(B, {channels}, H, W) in 0-1"
            )

    def _shape(self, images: Sequence[np.ndarray], size: int | Sequence[int]) -> tuple[int, int]:
        """(height, width) for all images: the least that holds each; exported files get the full."""
        sides = tuple(int(side) for side in size) if isinstance(size, Iterable) else (int(size),) * 2
        if len(sides) != 2 or min(sides) < 1:
            raise ConfigError(f"size={size}: a number of pixels, or (height, width), is needed")
        if not self.model.pt:
            height, width = self.model.imgsz or sides
        else:
            scaled = [_scaled(image.shape[:2], max(sides)) for image in images]
            height, width = (max(column) for column in zip(*scaled, strict=True))
        return self._whole(height), self._whole(width)

    def _whole(self, side: int) -> int:
        return -(-side // self.stride) * self.stride

    def _parts(self, images: list[np.ndarray], shape: tuple[int, int]) -> Iterator[list[np.ndarray]]:
        """As many images together as are fast: on a CPU few, as a batch of large ones leaves its cache."""
        most = len(images)
        if self.model.pt and self.device.type == "cpu":
            most = cpu_batch_size(*shape)
        return (images[first : first + most] for first in range(0, len(images), most))

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda") if self.amp and self.device.type == "cuda" else nullcontext()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> AutoShape:
        super()._apply(fn, recurse)
        if isinstance(self.model, PyTorchBackend):
            self.model.sync_device()
        return self


def _scaled(size_hw: Sequence[int], longer: int) -> tuple[int, int]:
    """Height and width when the longer of them is scaled to `longer`, cut to whole pixels."""
    gain = longer / max(size_hw)
    return max(int(size_hw[0] * gain), 1), max(int(size_hw[1] * gain), 1)
