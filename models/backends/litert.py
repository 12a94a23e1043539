"""TensorFlow Lite files, run by LiteRT: images (B, H, W, 3) in, normalized boxes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, import_runtime
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
        self.apply_metadata(from_zip(path))
        litert = import_runtime("ai_edge_litert.interpreter", weights, "LiteRT: pip install ai-edge-litert")
        try:
            delegates = [litert.load_delegate(_EDGE_TPU)] if self.edge else None
        except (OSError, ValueError) as error:
            raise ConfigError(f"{weights} needs an Edge TPU and its runtime {_EDGE_TPU}") from error
        try:
            self.interpreter = litert.Interpreter(
                str(path), num_threads=torch.get_num_threads(), experimental_delegates=delegates
            )
            self.interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise DataError(f"{weights}: LiteRT cannot read it ({first_line(error)})") from error
        self.input = self.interpreter.get_input_details()[0]
        self.output = self.interpreter.get_output_details()[0]
        self.read_input_shape([int(side) for side in self.input["shape"]])

    def infer(self, images: Tensor) -> Tensor:
        """Run the interpreter on a numpy array."""
        array = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu().numpy())
        self.interpreter.set_tensor(self.input["index"], _quantized(array, self.input))
        self.interpreter.invoke()
        found = torch.from_numpy(_dequantized(self.interpreter.get_tensor(self.output["index"]), self.output))
        return to_pixels(found, images).to(self.device)


class EdgeTpuBackend(LiteRtBackend):
    """LiteRT with a Coral Edge TPU. Experimental: not run by the tests."""

    edge = True


def to_pixels(boxes: Tensor, images: Tensor) -> Tensor:
    """Scale normalized boxes to pixels of `images`, in place; other columns are unchanged."""
    height, width = images.shape[2:]
    boxes[..., :4] *= boxes.new_tensor([width, height, width, height])
    return boxes


def _quantized(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Quantize real numbers to the type of a tensor."""
    dtype, (scale, zero) = detail["dtype"], detail["quantization"]
    if not scale:
        return array.astype(dtype)
    limits = np.iinfo(dtype)
    levels: np.ndarray = np.round(array / scale + zero).clip(limits.min, limits.max).astype(dtype)
    return levels


def _dequantized(array: np.ndarray, detail: dict[str, Any]) -> np.ndarray:
    """Dequantize the values of a tensor."""
    scale, zero = detail["quantization"]
    floats: np.ndarray = array.astype(np.float32)
    return (floats - zero) * scale if scale else floats.copy()
