"""A model on a Triton inference server: `--weights http://host:8000` or `grpc://host:8001`.

Experimental: tested with a stand-in for the server, over HTTP.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from utils.base.errors import DataError, one_line
from utils.base.formats import TRITON


class TritonBackend(Backend):
    """The first model that the server lists; --data gives the names."""

    def __init__(self, url: str, device: torch.device) -> None:
        super().__init__(url, device)
        parts = urlparse(url)
        transport = "grpc" if parts.scheme == "grpc" else "http"
        self.client = import_runtime(f"tritonclient.{transport}", f"--weights {url}", TRITON.install)
        ssl = {"ssl": True} if parts.scheme == "https" else {}
        try:
            self.server: Any = self.client.InferenceServerClient(url=parts.netloc, **ssl)
            self.model = self._first_model()
            metadata = self.server.get_model_metadata(self.model, **self._as_dict())
        except Exception as error:  # each transport has its own error classes
            raise DataError(f"--weights {url}: the server does not answer ({one_line(error)})") from error
        self.input = metadata["inputs"][0]
        self.outputs = [output["name"] for output in metadata["outputs"]]
        self.count_outputs(len(self.outputs), len(metadata["outputs"][0]["shape"]))
        self.fp16 = self.input["datatype"] == "FP16"
        self.read_input_shape([int(side) for side in self.input["shape"]])

    def infer(self, images: Tensor) -> Outputs:
        """Run the model on the server."""
        array = np.ascontiguousarray(images.cpu().numpy())
        request = self.client.InferInput(self.input["name"], list(array.shape), self.input["datatype"])
        request.set_data_from_numpy(array)
        try:
            response = self.server.infer(self.model, [request])
        except Exception as error:  # as above
            raise DataError(f"--weights {self.file}: the server failed ({one_line(error)})") from error
        arrays = [response.as_numpy(name) for name in self.outputs]
        return [torch.from_numpy(array.copy()).to(self.device) for array in arrays]

    def _first_model(self) -> str:
        listed = self.server.get_model_repository_index(**self._as_dict())
        models = listed["models"] if isinstance(listed, dict) else listed
        return str(models[0]["name"])

    def _as_dict(self) -> dict[str, bool]:
        return {"as_json": True} if self.client.__name__.endswith("grpc") else {}
