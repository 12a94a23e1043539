"""TensorFlow's SavedModel folders and frozen graphs: (B, H, W, 3) in, boxes as fractions of the image."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.litert import to_pixels
from models.backends.metadata import Metadata, from_yaml, literal
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, existing_file, existing_folder


class _TensorFlowBackend(Backend):
    """A function of TensorFlow."""

    function: Any

    def infer(self, images: Tensor) -> Tensor:
        """Run the function on numpy arrays."""
        array = np.ascontiguousarray(images.float().permute(0, 2, 3, 1).cpu().numpy())
        found: Any = self.function(self.tf.constant(array))
        if isinstance(found, dict):
            found = next(iter(found.values()))
        return to_pixels(torch.from_numpy(found.numpy().copy()), images).to(self.device)

    def _open(self) -> None:
        self.tf = load_tensorflow(self.file)


class SavedModelBackend(_TensorFlowBackend):
    """A SavedModel folder; metadata.yaml in it has stride and names."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        (file,) = existing_folder(weights, "saved_model.pb")
        self._open()
        try:
            self.kept = self.tf.saved_model.load(str(file.parent))  # its variables live as long as this
            self.function = self.kept.signatures["serving_default"]
        except (OSError, LookupError, AttributeError, ValueError) as error:
            raise DataError(f"{weights}: TensorFlow cannot read it ({error})") from error
        self.adopt(from_yaml(file.parent))
        self.read_shape(next(iter(self.function.structured_input_signature[1].values())).shape.as_list())


class GraphDefBackend(_TensorFlowBackend):
    """A frozen graph (.pb) from `images` to `output0`; if it has a constant `metadata`, names are there."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        self._open()
        self.function, metadata = _frozen(self.tf, path.read_bytes(), weights)
        self.adopt(Metadata.of(metadata, weights))
        self.read_shape(self.function.inputs[0].shape.as_list())


def load_tensorflow(asking: str) -> Any:
    """Import TensorFlow, quietly, for a file or a flag.

    Raises:
        ConfigError: it is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with suppress(ImportError):  # PyTorch's Triton crashes if it is loaded after TensorFlow
        import triton  # noqa: F401 - for the order alone
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ConfigError(f"{asking} needs TensorFlow: {FORMATS['saved_model'].install}") from error
    return tf


def _frozen(tf: Any, content: bytes, weights: str) -> tuple[Any, dict[str, Any]]:
    """A frozen graph as a function from `images` to `output0`, and what it says of its model."""
    graph = tf.Graph().as_graph_def()
    try:
        graph.ParseFromString(content)
        made = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph, name=""), [])
        told = [bytes(n.attr["value"].tensor.string_val[0]) for n in graph.node if n.name == "metadata"]
        return made.prune("images:0", "output0:0"), literal(told[0].decode()) if told else {}
    except Exception as error:  # protobuf's own kinds of error differ from release to release
        raise DataError(f"{weights}: TensorFlow cannot read it ({type(error).__name__}: {error})") from error
