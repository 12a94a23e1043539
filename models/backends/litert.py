"""TensorFlow Lite files, run by LiteRT: images (B, H, W, 3), boxes as fractions of the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import from_zip
from utils.base.errors import ConfigError, DataError, first_line
from utils.base.formats import existing_file

_EDGE_TPU = "libedgetpu.so.1"  # of the Edge TPU runtime on Linux


class LiteRtBackend(Backend):
    """LiteRT with XNNPACK."""

    edge = False

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        self.adopt(from_zip(path))
        try:
            from ai_edge_litert import interpreter as litert
        except ImportError as error:
            raise ConfigError(f"{weights} needs LiteRT: pip install ai-edge-litert") from error
        try:
            delegates = [litert.load_delegate(_EDGE_TPU)] if self.edge else None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{weights} needs an Edge TPU and its runtime {_EDGE_TPU}") from error
        try:
            self.runner = litert.Interpreter(
                str(path), num_threads=torch.get_num_threads(), experimental_delegates=delegates
            )
            self.runner.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{weights}: LiteRT cannot read it ({first_line(error)})") from error
        self.source, self.result = self.runner.get_input_details()[0], self.runner.get_output_details()[0]
        self.read_shape([int(side) for side in self.source["shape"]])

    def infer(self, images: Tensor) -> Tensor:
        """Run the interpreter on numpy arrays."""
        array = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu().numpy())
        self.runner.set_tensor(self.source["index"], _quantised(array, self.source))
        self.runner.invoke()
        found = torch.from_numpy(_real(self.runner.get_tensor(self.result["index"]), self.result))
        return to_pixels(found, images).to(self.device)


class EdgeTpuBackend(LiteRtBackend):
    """LiteRT with a Coral Edge TPU. Not run by our tests."""

    edge = True


def to_pixels(found: Tensor, images: Tensor) -> Tensor:
    """Boxes as fractions of the image -> in its pixels; the other columns stay."""
    height, width = images.shape[2:]
    found[..., :4] *= found.new_tensor([width, height, width, height])
    return found


def _quantised(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Real numbers -> what a tensor holds."""
    kind, (scale, zero) = detail["dtype"], detail["quantization"]
    if not scale:
        return array.astype(kind)
    limits = np.iinfo(kind)
    rounded: np.ndarray = np.round(array / scale + zero).clip(limits.min, limits.max).astype(kind)
    return rounded


def _real(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """What a tensor holds -> real numbers."""
    scale, zero = detail["quantization"]
    floats: np.ndarray = array.astype(np.float32)
    return (floats - zero) * scale if scale else floats.copy()
