"""OpenVINO folders: a network in .xml and .bin, stride and names in .yaml."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import from_yaml
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, existing_folder


class OpenVinoBackend(Backend):
    """OpenVINO on the device that it finds best, or the one of `--runtime`: CPU, GPU, NPU, AUTO."""

    def __init__(self, weights: str, device: torch.device, *, half: bool = False, runtime: str = "") -> None:
        super().__init__(weights, device)
        (network,) = existing_folder(weights, "*.xml")
        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        try:
            import openvino
        except ImportError as error:
            raise ConfigError(f"{weights} needs OpenVINO: {FORMATS['openvino'].install}") from error
        core = openvino.Core()
        where = runtime or ("CPU" if core.available_devices == ["CPU"] else "AUTO")
        try:
            model = core.read_model(network)
        except RuntimeError as error:
            raise DataError(f"{weights}: OpenVINO cannot read it ({_line(error)})") from error
        sides = model.inputs[0].partial_shape
        self.read_shape([side.get_length() if side.is_static else None for side in sides])
        try:
            self.model = core.compile_model(model, where, _settings(where, half))
        except RuntimeError as error:
            known = ", ".join(core.available_devices)
            raise ConfigError(
                f"--runtime {where}: OpenVINO cannot run it there ({_line(error)}); devices here: {known}"
            ) from error
        self.adopt(from_yaml(network.parent))

    def infer(self, images: Tensor) -> Tensor:
        """Run the network on a numpy array."""
        array = np.ascontiguousarray(images.cpu().numpy())
        return torch.from_numpy(self.model(array, share_inputs=True)[0].copy()).to(self.device)


def _settings(where: str, half: bool) -> dict[str, Any]:
    """As exact as the file, unless half precision is asked for; as many threads as PyTorch was given."""
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if where == "CPU":
        settings["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    if not half:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    return settings


def _line(error: RuntimeError) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
