"""TensorFlow SavedModel folders, frozen graphs and LiteRT files: (B, H, W, 3) in, normalized boxes out."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import Metadata, from_yaml, from_zip, parse_literal
from utils.base.errors import ConfigError, DataError, first_line, one_line
from utils.base.formats import FORMATS, existing_file, existing_folder

_EDGE_TPU = "libedgetpu.so.1"  # of the Edge TPU runtime on Linux


class _TensorFlowBackend(Backend):
    """A TensorFlow function; `tf` is the package."""

    tf: Any
    function: Any

    def infer(self, images: Tensor) -> Outputs:
        """Run the function on a numpy array."""
        array = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu().numpy())
        output: Any = self.function(self.tf.constant(array))
        parts = output.values() if isinstance(output, dict) else output
        tensors = [torch.from_numpy(part.numpy().copy()) for part in parts]
        return [to_pixels(part, images).to(self.device) for part in tensors]


class SavedModelBackend(_TensorFlowBackend):
    """A SavedModel folder, with its metadata in metadata.yaml."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        (file,) = existing_folder(weights, "saved_model.pb")
        self.tf = load_tensorflow(weights)
        try:
            self.saved_model = self.tf.saved_model.load(str(file.parent))  # keeps its variables alive
            self.function = self.saved_model.signatures["serving_default"]
        except (OSError, LookupError, AttributeError, ValueError) as error:
            raise DataError(f"{weights}: TensorFlow cannot read it ({one_line(error)})") from error
        self.apply_metadata(from_yaml(file.parent))
        self.count_outputs(len(self.function.structured_outputs))
        images = next(iter(self.function.structured_input_signature[1].values()))
        self.read_input_shape(images.shape.as_list())


class GraphDefBackend(_TensorFlowBackend):
    """A frozen graph (.pb) from `images` to `output0`, with its metadata in a constant `metadata`."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        self.tf = load_tensorflow(weights)
        self.function, metadata = _frozen(self.tf, path.read_bytes(), weights)
        self.count_outputs(len(self.function.outputs))
        self.apply_metadata(Metadata.of(metadata, weights))
        self.read_input_shape(self.function.inputs[0].shape.as_list())


def load_tensorflow(needed_by: str) -> Any:
    """Import TensorFlow without its log output; `needed_by` is the file or flag that needs it.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with suppress(ImportError):  # PyTorch's Triton crashes if it is loaded after TensorFlow
        import triton  # noqa: F401 - for the order alone
    return import_runtime("tensorflow", needed_by, f"TensorFlow: {FORMATS['saved_model'].install}")


def _frozen(tf: Any, content: bytes, weights: str) -> tuple[Any, dict[str, Any]]:
    """Return a frozen graph as a function from `images` to its outputs, and its metadata."""
    graph = tf.Graph().as_graph_def()
    try:
        graph.ParseFromString(content)
        function = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        found = [bytes(n.attr["value"].tensor.string_val[0]) for n in graph.node if n.name == "metadata"]
        outputs = [f"{node.name}:0" for node in graph.node if node.name in ("output0", "output1")]
        metadata = parse_literal(found[0].decode()) if found else {}
        return function.prune("images:0", sorted(outputs) or ["output0:0"]), metadata
    except Exception as error:  # protobuf's error classes differ between versions
        raise DataError(
            f"{weights}: TensorFlow cannot read it ({type(error).__name__}: {one_line(error)})"
        ) from error


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
        self.outputs = self.interpreter.get_output_details()
        self.count_outputs(len(self.outputs))
        self.read_input_shape([int(side) for side in self.input["shape"]])

    def infer(self, images: Tensor) -> Outputs:
        """Run the interpreter on a numpy array."""
        array = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu().numpy())
        self.interpreter.set_tensor(self.input["index"], _quantized(array, self.input))
        self.interpreter.invoke()
        arrays = [_dequantized(self.interpreter.get_tensor(each["index"]), each) for each in self.outputs]
        return [to_pixels(torch.from_numpy(array), images).to(self.device) for array in arrays]


class EdgeTpuBackend(LiteRtBackend):
    """LiteRT with a Coral Edge TPU. Experimental: not run by the tests."""

    edge = True


def to_pixels(boxes: Tensor, images: Tensor) -> Tensor:
    """Scale normalized boxes to pixels of `images`, in place; other columns and prototypes stay."""
    if boxes.dim() != 3:
        return boxes
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
