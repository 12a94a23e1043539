"""OpenVINO folders: a network in .xml and .bin, metadata in .yaml."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import from_yaml
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, existing_folder


class OpenVinoBackend(Backend):
    """OpenVINO on the device that it prefers, or on that of `--runtime`: CPU, GPU, NPU, AUTO."""

    def __init__(self, weights: str, device: torch.device, *, half: bool = False, runtime: str = "") -> None:
        super().__init__(weights, device)
        (network,) = existing_folder(weights, "*.xml")
        os.environ.setdefault("OPENVINO_TELEMETRY", "0")
        openvino = import_runtime("openvino", weights, f"OpenVINO: {FORMATS['openvino'].install}")
        core = openvino.Core()
        device_name = runtime or ("CPU" if core.available_devices == ["CPU"] else "AUTO")
        try:
            model = core.read_model(network)
        except RuntimeError as error:
            raise DataError(f"{weights}: OpenVINO cannot read it ({_reason(error)})") from error
        sides = model.inputs[0].partial_shape
        self.read_input_shape([side.get_length() if side.is_static else None for side in sides])
        try:
            self.model = core.compile_model(model, device_name, _settings(device_name, half))
        except RuntimeError as error:
            known = ", ".join(core.available_devices)
            raise ConfigError(
                f"--runtime {device_name}: OpenVINO cannot run it there ({_reason(error)}); devices: {known}"
            ) from error
        self.count_outputs(len(model.outputs), len(model.outputs[0].partial_shape))
        self.apply_metadata(from_yaml(network.parent))

    def infer(self, images: Tensor) -> Outputs:
        """Run the network on a numpy array."""
        array = np.ascontiguousarray(images.cpu().numpy())
        found = self.model(array, share_inputs=True)
        return [torch.from_numpy(found[index].copy()).to(self.device) for index in range(len(found))]


def _settings(device_name: str, half: bool) -> dict[str, Any]:
    """Return settings for the precision of the file unless `half`, and the number of threads of PyTorch."""
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if device_name == "CPU":
        settings["INFERENCE_NUM_THREADS"] = torch.get_num_threads()
    if not half:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    return settings


def _reason(error: RuntimeError) -> str:
    """Return the last line of an error's message; those before it are where in OpenVINO it was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1]
