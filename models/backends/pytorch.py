"""PyTorch checkpoints, one or several as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.backends.base import Backend, LayerCallback
from models.weights import Ensemble, load_for_inference
from models.yolo import DetectionModel
from utils.base.names import class_names


class PyTorchBackend(Backend):
    """A model of .pt files; the only runtime with test-time augmentation and feature maps."""

    pt = True

    def __init__(
        self, weights: Sequence[str], device: torch.device, *, half: bool = False, fuse: bool = True
    ) -> None:
        super().__init__(", ".join(weights), device)
        model = load_for_inference(weights[0] if len(weights) == 1 else list(weights), device, fuse=fuse)
        fp16 = half and device.type == "cuda"
        if device.type in ("cpu", "cuda"):
            model = model.to(memory_format=torch.channels_last)
        self._set_model(model.half() if fp16 else model.float())

    @classmethod
    def from_model(cls, model: DetectionModel | Ensemble) -> PyTorchBackend:
        """Wrap a model that is in memory, on its device and in its precision; it is put into eval mode."""
        backend = cls.__new__(cls)
        Backend.__init__(backend, "the model", next(model.parameters()).device)
        backend._set_model(model)
        return backend

    def _set_model(self, model: DetectionModel | Ensemble) -> None:
        self.model = model.eval()
        self.stride = max(int(model.stride.max()), 32)
        self.names = class_names(model.names)
        self.sync_device()

    def sync_device(self) -> None:
        """Expect images on the device and in the precision that the model has now."""
        weight = next(self.model.parameters())
        self.device, self.fp16 = weight.device, weight.dtype == torch.float16

    def infer(self, images: Tensor) -> Tensor:
        """Run the model."""
        return _decoded(self.model(images))

    @torch.inference_mode()
    def __call__(
        self, images: Tensor, augment: bool = False, visualize: LayerCallback | None = None
    ) -> Tensor:
        """Return decoded boxes (B, N, 5 + nc); `visualize` is called with each layer and its output."""
        images = images.to(self.device, torch.float16 if self.fp16 else torch.float32)
        return _decoded(self.model(images, augment=augment, visualize=visualize)).float()


def _decoded(output: Tensor | Sequence[Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
