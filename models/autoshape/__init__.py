"""AutoShape: a model with pre-processing and post-processing, for images of any type and size."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.autoshape.classifications import Classifications
from models.autoshape.detections import Detections
from models.autoshape.inputs import NamedImage, load_images
from models.autoshape.results import Results
from models.backends.base import Backend, cpu_batch_size
from models.backends.pytorch import PyTorchBackend
from models.base_model import BaseModel
from models.weights import Ensemble
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.names import class_names
from utils.base.timing import STAGES, Stopwatch
from utils.data.letterbox import letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression
from utils.tasks.classify.transforms import center_crop, normalize
from utils.tasks.segment.prediction import FrameMasks
from utils.tasks.task import get_task

__all__ = ["AutoShape", "Classifications", "Detections"]
Detections.__module__ = "models.common"  # where the original has it, by which SAHI and others recognise it


class AutoShape(nn.Module):
    """Model for files, URLs, PIL images, arrays, or a list of these: `model("bus.jpg")`.

    Args:
        model: a backend of `models.backends.load_backend`, or a model in memory, such as a DetectionModel.

    Attributes:
        conf, iou: confidence threshold and NMS IoU threshold.
        agnostic: class-agnostic NMS.
        multi_label: allow several classes per box.
        classes: class indices to detect; None for all.
        max_det: maximum detections per image.
        amp: mixed precision, on CUDA.
        retina_masks: masks of a segmentation model at the resolution of the image, not of the input.
        private_addresses: allow image URLs of this machine and its private network, not only of public hosts.
        model: the backend; for .pt files its `model` is the network.
        names: class names by index; may be replaced.
        stride: height and width of the network's input are multiples of it.

    Shape:
        Images give `Detections`; of a classification model `Classifications`, to which the attributes about
        boxes do not apply. A tensor (B, 3, H, W) in 0-1 is passed to the network without
        pre-processing and NMS, and gives its output: (decoded (B, N, 5 + nc), raw maps) for .pt files, and
        decoded boxes for others; a segmentation model also gives mask prototypes, after the boxes. A
        classification model takes normalized images, and gives logits (B, nc).
    """

    conf = 0.25
    iou = 0.45
    agnostic = False
    multi_label = False
    classes: Sequence[int] | None = None
    max_det = 1000
    amp = False
    retina_masks = False
    private_addresses = False

    def __init__(self, model: Backend | nn.Module, verbose: bool = True) -> None:
        super().__init__()
        model = getattr(model, "backend", model)  # of DetectMultiBackend
        if isinstance(model, BaseModel | Ensemble):
            model = PyTorchBackend.from_model(model)
        if not isinstance(model, Backend):
            raise ConfigError(f"AutoShape: expected a backend or a model, not {type(model).__name__}")
        self.model = model
        if isinstance(model, PyTorchBackend):
            self.net = model.model  # a submodule, for `parameters`, `to` and `state_dict`
        self.names: Any = get_task(model.task).shown_names(model.names)
        self.stride = model.stride
        self.eval()

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return self.model.device

    def to(self, *args: Any, **kwargs: Any) -> AutoShape:
        """Move the network as `nn.Module.to` does; the model of an exported file cannot be moved."""
        if not self.model.pt:
            LOG.warning(f"{self.model.file} stays on {self.device}: choose with device= when loading it")
        super().to(*args, **kwargs)
        return self

    def forward(
        self,
        ims: Any,
        size: int | Sequence[int] | None = None,
        augment: bool = False,
        profile: bool = False,
    ) -> Any:
        """Detect objects, or classify images.

        Args:
            ims: an image or a list of images of any types; arrays are RGB. For a tensor (B, 3, H, W) see
                `Shape` above.
            size: longer side of the network's input in pixels; or (height, width), for exported files. By
                default 640, of a classification model 224.
            augment: test-time augmentation, for .pt files only.
            profile: unused, accepted for compatibility; times are always measured.

        Raises:
            ConfigError: an object that is not an image, or an option that the file does not support.
            DataError: an image that is missing or corrupt.
        """
        if isinstance(ims, Tensor) and ims.ndim == 4:
            return self._forward_tensor(ims, augment)
        items = list(ims) if isinstance(ims, list | tuple) else [ims]
        self._check(items)
        run = self._classify if self.model.task == "classify" else self._detect
        default = get_task(self.model.task).default_imgsz
        clocks = [Stopwatch(self.device) for _ in STAGES]
        with torch.no_grad():
            with clocks[0]:
                loaded = load_images(items, self.private_addresses)
            return run(loaded, default if size is None else size, augment, clocks)

    def _forward_tensor(self, images: Tensor, augment: bool) -> Any:
        backend = self.model
        if not isinstance(backend, PyTorchBackend):
            return backend(images, augment=augment)
        images = images.to(backend.device, torch.float16 if backend.fp16 else torch.float32)
        with self._precision():
            return backend.model(images, augment=augment)

    def _detect(
        self, loaded: list[NamedImage], size: int | Sequence[int], augment: bool, clocks: list[Stopwatch]
    ) -> Results:
        preprocess, inference, nms = clocks
        images = [item.rgb for item in loaded]
        shape = self._shape(images, size)
        detections: list[Tensor] = []
        masks: list[FrameMasks] = []
        for batch in self._batches(images, shape):
            with preprocess:
                letterboxed = [letterbox(image, shape, auto=False)[0] for image in batch]
                inputs = to_tensor(letterboxed, self.device, self.model.fp16, rgb=True)
            with inference, self._precision():
                output = self.model(inputs, augment=augment)
            with nms:
                decoded, protos = output if self.model.task == "segment" else (output, None)
                rows = self._nms(decoded, 0 if protos is None else protos.shape[1])
                for index, (found, image) in enumerate(zip(rows, batch, strict=True)):
                    image_hw = image.shape[0], image.shape[1]
                    boxes = found[:, :6].clone()
                    scale_boxes(shape, boxes[:, :4], image_hw)
                    detections.append(boxes)
                    if protos is not None:
                        corners = boxes[:, :4].round().cpu().numpy()
                        native = self.retina_masks
                        masks.append(FrameMasks.of(protos[index], found, shape, corners, image_hw, native))
        files = [item.file for item in loaded]
        names = class_names(self.names)
        size_of_input = len(images), 3, *shape
        return Detections(images, detections, files, clocks, names, size_of_input, masks)

    def _classify(
        self, loaded: list[NamedImage], size: int | Sequence[int], augment: bool, clocks: list[Stopwatch]
    ) -> Results:
        preprocess, inference, postprocess = clocks
        images = [item.rgb for item in loaded]
        side = max(self.model.imgsz or _sides(size))
        probabilities: list[Tensor] = []
        for batch in self._batches(images, (side, side)):
            with preprocess:
                squares = [center_crop(image, side) for image in batch]
                inputs = normalize(to_tensor(squares, self.device, self.model.fp16, rgb=True))
            with inference, self._precision():
                logits = self.model(inputs, augment=augment)
            with postprocess:
                probabilities.append(logits.float().softmax(1))
        files = [item.file for item in loaded]
        names = class_names(self.names)
        return Classifications(
            images, torch.cat(probabilities), files, clocks, names, (len(images), 3, side, side)
        )

    def _nms(self, decoded: Tensor, coefficients: int) -> list[Tensor]:
        classes = [self.classes] if isinstance(self.classes, int) else self.classes
        if not all(isinstance(index, int) for index in classes or ()):
            raise ConfigError(f"AutoShape: classes {classes}: expected class indices, such as [0, 2]")
        for name, value in (("conf", self.conf), ("iou", self.iou)):
            if not 0 <= value <= 1:
                raise ConfigError(f"AutoShape: {name} {value}: expected a number from 0 to 1")
        return non_max_suppression(
            decoded,
            self.conf,
            self.iou,
            classes,
            self.agnostic,
            self.multi_label,
            max_det=self.max_det,
            nm=coefficients,
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
        """Return the smallest (height, width) that all images fit into; for exported files the full size."""
        sides = _sides(size)
        if not self.model.pt:
            height, width = self.model.imgsz or sides
        else:
            scaled = [_scaled(image.shape[:2], max(sides)) for image in images]
            height, width = (max(column) for column in zip(*scaled, strict=True))
        return self._round_up(height), self._round_up(width)

    def _round_up(self, side: int) -> int:
        return -(-side // self.stride) * self.stride

    def _batches(self, images: list[np.ndarray], shape: tuple[int, int]) -> Iterator[list[np.ndarray]]:
        """Split images into batches: small ones on a CPU, see `cpu_batch_size`, else one of all images."""
        size = len(images)
        if self.model.pt and self.device.type == "cpu":
            size = cpu_batch_size(*shape)
        return (images[first : first + size] for first in range(0, len(images), size))

    def _precision(self) -> AbstractContextManager[Any]:
        return torch.autocast("cuda") if self.amp and self.device.type == "cuda" else nullcontext()

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> AutoShape:
        super()._apply(fn, recurse)
        if isinstance(self.model, PyTorchBackend):
            self.model.sync_device()
        return self


def _sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Return (height, width) of a size, which may be one number."""
    sides = tuple(int(side) for side in size) if isinstance(size, Iterable) else (int(size),) * 2
    if len(sides) != 2 or min(sides) < 1:
        raise ConfigError(f"size={size}: expected a number of pixels, or (height, width)")
    return sides


def _scaled(size_hw: Sequence[int], longer: int) -> tuple[int, int]:
    """Scale height and width so that the longer one is `longer`, and round them down to pixels."""
    gain = longer / max(size_hw)
    return max(int(size_hw[0] * gain), 1), max(int(size_hw[1] * gain), 1)


AutoShape.__module__ = "models.common"
