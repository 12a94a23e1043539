"""The interface of all runtimes, for detect.py, val.py, AutoShape and the server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from models.backends.metadata import MAX_STRIDE, Metadata
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.ops.boxes import xyxy2xywh

LayerCallback = Callable[[nn.Module, Tensor], None]  # called with each layer and its output

_CPU_BATCH_PIXELS, _MAX_CPU_BATCH = 8 * 320 * 320, 8


def cpu_batch_size(height: int, width: int) -> int:
    """Return the batch size at which PyTorch on a CPU runs images of this size fastest (measured).

    Small images spend much of their time between layers and in Python; a batch of large ones does not fit
    into the cache.
    """
    return max(min(_CPU_BATCH_PIXELS // (height * width), _MAX_CPU_BATCH), 1)


Outputs = Tensor | Sequence[Tensor]  # of a runtime: decoded boxes; of a segmentation model prototypes, too


class Backend(ABC):
    """A loaded model: images (B, 3, H, W) in 0-1 -> decoded boxes (B, N, 5 + nc) in float32.

    A classification model returns logits (B, nc) of normalized images.

    A segmentation model returns a pair: decoded boxes (B, N, 5 + nc + nm) with mask coefficients, and mask
    prototypes (B, nm, h, w).

    A runtime is a subclass: its constructor loads the file, takes what the file says of its model with
    `apply_metadata` and `read_input_shape`, and `infer` runs it.

    Attributes:
        file: the model path, for messages.
        task: detect, segment or classify.
        mask_ratio: the input is so many times as large as the mask prototypes.
        device: device of the images.
        stride: image height and width must be multiples of it.
        names: class names by index.
        fp16: whether images must be FP16.
        pt: whether it is a PyTorch model, which takes any rectangle; others get the full `--imgsz`.
        batch: the batch size of the file, or None for any; other batches are split and padded to it.
        imgsz: the (height, width) of the file, or None for any.
        trained_imgsz: the image size of the training, if the file says it.
        has_nms: whether NMS is part of the file.
        nms_conf: confidence threshold of that NMS.
    """

    pt = False

    def __init__(self, file: str, device: torch.device) -> None:
        self.file = file
        self.task = "detect"
        self.mask_ratio = 4
        self.device = device
        self.stride = MAX_STRIDE
        self.names: dict[int, str] = {}
        self.fp16 = False
        self.batch: int | None = None
        self.imgsz: tuple[int, int] | None = None
        self.trained_imgsz: int | None = None
        self.has_nms = False
        self.nms_conf = 0.0

    def apply_metadata(self, meta: Metadata) -> None:
        """Set task, stride, names, NMS and sizes from the metadata of the file."""
        self.task = meta.task or self.task
        self.stride, self.names, self.has_nms = meta.stride, meta.names, meta.has_nms
        self.imgsz = meta.imgsz or self.imgsz
        self.batch = meta.batch or self.batch
        self.nms_conf = meta.nms_conf

    def read_input_shape(self, shape: Sequence[Any]) -> None:
        """Set the fixed batch and image size from the shape of the input; names and -1 are dynamic sides.

        Raises:
            DataError: the input is not a batch of images.
        """
        if len(shape) != 4:
            raise DataError(
                f"--weights {self.file}: not a model for images: its input has {len(shape)} dimensions, not 4"
            )
        batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in shape)
        height, width = sides[:2] if sides[2] == 3 else sides[1:]
        self.batch = batch
        self.imgsz = (height, width) if height and width else None

    def count_outputs(self, outputs: int, dimensions: int = 3) -> None:
        """Recognise the task by the outputs: files of YOLOv5 do not say what they are.

        Args:
            outputs: their number; a segmentation model has two.
            dimensions: those of the first; a classifier's logits have two.
        """
        if outputs == 2:
            self.task = "segment"
        elif dimensions == 2:
            self.task = "classify"

    def warn_about_conf_thres(self, conf_thres: float) -> None:
        """Warn where the NMS in the file has a higher confidence threshold than the one asked for."""
        if self.has_nms and conf_thres < self.nms_conf:
            LOG.warning(
                f"{self.file} has NMS built in with confidence threshold {self.nms_conf:g}, so --conf-thres "
                f"{conf_thres:g} has no effect and mAP is too low"
            )

    @property
    def nc(self) -> int:
        """Number of classes."""
        return len(self.names)

    @property
    def is_pytorch_model(self) -> bool:
        """Whether this is a PyTorch model; the same as `pt`."""
        return self.pt

    @abstractmethod
    def infer(self, images: Tensor) -> Outputs:
        """Run the model on images of its device, precision, size and batch size."""

    @torch.inference_mode()
    def __call__(self, images: Tensor, augment: bool = False, visualize: LayerCallback | None = None) -> Any:
        """Return decoded boxes (B, N, 5 + nc), xywh in pixels of `images`; or a pair, see the class.

        Raises:
            ConfigError: a size that the file does not accept, or an option of PyTorch models.
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
            parts = _tensors(self.infer(images))
        else:
            batches = [self._infer_padded(part) for part in images.split(self.batch)]
            parts = [torch.cat(each) for each in zip(*batches, strict=True)]
        if self.task == "segment":
            decoded, protos = self._decoded_and_protos(parts)
            return (self._as_decoded(decoded) if self.has_nms else decoded), protos
        return self._as_decoded(parts[0]) if self.has_nms else parts[0]

    def warmup(self, shape: tuple[int, int, int, int] = (1, 3, 640, 640)) -> None:
        """Run once on zeros, so that the set-up does not slow down the first image."""
        self(torch.zeros(shape, device=self.device))

    def set_missing_names(self, names: dict[int, str] | None) -> None:
        """Set the class names if the file contains none: as given, else class0, class1, ...

        Raises:
            ConfigError: a file with NMS, whose output does not say how many classes there are.
        """
        if self.names:
            return
        if names:
            self.names = dict(names)
            return
        if self.has_nms:
            raise ConfigError(f"{self.file}: holds no class names; give a data yaml with --data")
        height, width = self.imgsz or (2 * self.stride, 2 * self.stride)
        output = self(torch.zeros(1, 3, height, width))
        decoded, masks = (output[0], output[1].shape[1]) if self.task == "segment" else (output, 0)
        classes = output.shape[1] if self.task == "classify" else decoded.shape[2] - 5 - masks
        self.names = {index: f"class{index}" for index in range(classes)}

    def _infer_padded(self, images: Tensor) -> list[Tensor]:
        """Run at most `batch` images, padded with zeros to that number."""
        assert self.batch is not None
        missing = self.batch - len(images)
        if missing:
            images = torch.cat((images, images.new_zeros(missing, *images.shape[1:])))
        return [part[: self.batch - missing] for part in _tensors(self.infer(images))]

    def _decoded_and_protos(self, parts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the two outputs of a segmentation model, which a runtime may give in any order."""
        by_dimensions = {part.dim(): part for part in parts}
        if len(parts) != 2 or by_dimensions.keys() != {3, 4}:
            found = " and ".join(str(tuple(part.shape)) for part in parts)
            raise DataError(f"{self.file}: expected boxes and mask prototypes, found outputs {found}")
        return by_dimensions[3], by_dimensions[4]

    def _as_decoded(self, rows: Tensor) -> Tensor:
        """Convert the output of NMS, (B, K, 6 + nm) xyxy, confidence, class, to decoded boxes (B, K, 5 + nc).

        A second NMS with the same thresholds keeps all of them.
        """
        indices = rows[..., 5].long()
        boxes_only = rows.shape[2] == 6
        if boxes_only == (self.task == "segment") or int(indices.max()) >= self.nc:
            raise DataError(f"{self.file}: its output has classes beyond the {self.nc} that it names")
        classes = torch.nn.functional.one_hot(indices, max(self.nc, 1))
        # NMS multiplies mask coefficients by the confidence, which they are already.
        coefficients = rows[..., 6:] / rows[..., 4:5].clamp(min=1e-9)
        return torch.cat((xyxy2xywh(rows[..., :4]), rows[..., 4:5], classes.to(rows), coefficients), -1)


def import_runtime(module: str, file: str, install: str) -> Any:
    """Import the package that runs a model file.

    Args:
        module: name of the module.
        file: the model file, for the message.
        install: what is needed, and how to install it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ConfigError(f"{file} needs {install}") from error


def _tensors(outputs: Outputs) -> list[Tensor]:
    return [part.float() for part in ([outputs] if isinstance(outputs, Tensor) else outputs)]


def _size(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}x{size_hw[1]}"


def _flag(size_hw: tuple[int, int]) -> str:
    return f"{size_hw[0]}" if size_hw[0] == size_hw[1] else f"{size_hw[0]} {size_hw[1]}"
