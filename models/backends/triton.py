"""A model on a Triton inference server: `--weights http://host:8000` or `grpc://host:8001`."""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend
from utils.base.errors import ConfigError, DataError
from utils.base.formats import TRITON


class TritonBackend(Backend):
    """The first model that the server lists; --data gives the names."""

    def __init__(self, url: str, device: torch.device) -> None:
        super().__init__(url, device)
        place = urlparse(url)
        kind = "grpc" if place.scheme == "grpc" else "http"
        try:
            self.client = import_module(f"tritonclient.{kind}")
        except ImportError as error:
            raise ConfigError(f"--weights {url} needs: {TRITON.install}") from error
        ssl = {"ssl": True} if place.scheme == "https" else {}
        try:
            self.server: Any = self.client.InferenceServerClient(url=place.netloc, **ssl)
            self.model = self._first_model()
            metadata = self.server.get_model_metadata(self.model, **self._as_dict())
        except Exception as error:  # each transport has its own kinds of error
            raise DataError(f"--weights {url}: the server does not answer ({error})") from error
        self.source, self.result = metadata["inputs"][0], metadata["outputs"][0]
        self.fp16 = self.source["datatype"] == "FP16"
        self.read_shape([int(side) for side in self.source["shape"]])

    def infer(self, images: Tensor) -> Tensor:
        """Ask the server."""
        array = np.ascontiguousarray(images.cpu().numpy())
        given = self.client.InferInput(self.source["name"], list(array.shape), self.source["datatype"])
        given.set_data_from_numpy(array)
        try:
            answer = self.server.infer(self.model, [given])
        except Exception as error:  # as above
            raise DataError(f"--weights {self.file}: the server failed ({error})") from error
        return torch.from_numpy(answer.as_numpy(self.result["name"]).copy()).to(self.device)

    def _first_model(self) -> str:
        listed = self.server.get_model_repository_index(**self._as_dict())
        models = listed["models"] if isinstance(listed, dict) else listed
        return str(models[0]["name"])

    def _as_dict(self) -> dict[str, bool]:
        return {"as_json": True} if self.client.__name__.endswith("grpc") else {}
