"""TensorFlow SavedModel folders and frozen graphs: images (B, H, W, 3) in, normalized boxes out."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, import_runtime
from models.backends.litert import to_pixels
from models.backends.metadata import Metadata, from_yaml, parse_literal
from utils.base.errors import DataError, one_line
from utils.base.formats import FORMATS, existing_file, existing_folder


class _TensorFlowBackend(Backend):
    """A TensorFlow function; `tf` is the package."""

    tf: Any
    function: Any

    def infer(self, images: Tensor) -> Tensor:
        """Run the function on a numpy array."""
        array = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu().numpy())
        output: Any = self.function(self.tf.constant(array))
        if isinstance(output, dict):
            output = next(iter(output.values()))
        return to_pixels(torch.from_numpy(output.numpy().copy()), images).to(self.device)


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
        images = next(iter(self.function.structured_input_signature[1].values()))
        self.read_input_shape(images.shape.as_list())


class GraphDefBackend(_TensorFlowBackend):
    """A frozen graph (.pb) from `images` to `output0`, with its metadata in a constant `metadata`."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        self.tf = load_tensorflow(weights)
        self.function, metadata = _frozen(self.tf, path.read_bytes(), weights)
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
    """Return a frozen graph as a function from `images` to `output0`, and its metadata."""
    graph = tf.Graph().as_graph_def()
    try:
        graph.ParseFromString(content)
        function = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        found = [bytes(n.attr["value"].tensor.string_val[0]) for n in graph.node if n.name == "metadata"]
        return function.prune("images:0", "output0:0"), parse_literal(found[0].decode()) if found else {}
    except Exception as error:  # protobuf's error classes differ between versions
        raise DataError(
            f"{weights}: TensorFlow cannot read it ({type(error).__name__}: {one_line(error)})"
        ) from error
