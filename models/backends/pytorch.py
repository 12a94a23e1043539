"""PyTorch checkpoints, one or several as an ensemble."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from models.backends.base import Backend, Watch
from models.weights import Ensemble, load_for_inference
from models.yolo import DetectionModel
from utils.base.names import class_names


class PyTorchBackend(Backend):
    """A model built from a .pt file; the only one with test-time augmentation and feature images."""

    pt = True

    def __init__(
        self, weights: Sequence[str], device: torch.device, *, half: bool = False, fuse: bool = True
    ) -> None:
        super().__init__(", ".join(weights), device)
        model = load_for_inference(weights[0] if len(weights) == 1 else list(weights), device, fuse=fuse)
        fp16 = half and device.type == "cuda"
        if device.type in ("cpu", "cuda"):
            model = model.to(memory_format=torch.channels_last)
        self._take(model.half() if fp16 else model.float())

    @classmethod
    def around(cls, model: DetectionModel | Ensemble) -> PyTorchBackend:
        """A model that is in memory already; it stays where and as it is, in eval mode."""
        backend = cls.__new__(cls)
        Backend.__init__(backend, "the model", next(model.parameters()).device)
        backend._take(model)
        return backend

    def _take(self, model: DetectionModel | Ensemble) -> None:
        self.model = model.eval()
        self.stride = max(int(model.stride.max()), 32)
        self.names = class_names(model.names)
        self.follow()

    def follow(self) -> None:
        """Expect images where the model is now, and in its precision."""
        weight = next(self.model.parameters())
        self.device, self.fp16 = weight.device, weight.dtype == torch.float16

    def infer(self, images: Tensor) -> Tensor:
        """Run the model without any option."""
        return _decoded(self.model(images))

    @torch.inference_mode()
    def __call__(self, images: Tensor, augment: bool = False, visualize: Watch | None = None) -> Tensor:
        """Return decoded boxes (B, N, 5 + nc); `visualize` is called with each layer and its output."""
        images = images.to(self.device, torch.float16 if self.fp16 else torch.float32)
        return _decoded(self.model(images, augment=augment, visualize=visualize)).float()


def _decoded(output: Tensor | Sequence[Tensor]) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]
