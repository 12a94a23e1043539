"""ONNX files, run by ONNX Runtime or, with `--dnn`, by OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import Metadata
from utils.base.device import disable_ort_telemetry
from utils.base.errors import ConfigError, DataError, first_line, one_line
from utils.base.formats import existing_file


class OnnxBackend(Backend):
    """ONNX Runtime; on the GPU if onnxruntime-gpu is installed."""

    def __init__(self, weights: str, device: torch.device, *, runtime: str = "") -> None:
        super().__init__(weights, device)
        self.session = _open_session(weights, device, runtime)
        (images, *_), meta = self.session.get_inputs(), self.session.get_modelmeta().custom_metadata_map
        self.input = images.name
        self.fp16 = images.type == "tensor(float16)"
        self.read_shape(images.shape)
        self.adopt(
            Metadata.of({key: meta[key] for key in ("stride", "names", "nms") if key in meta}, weights)
        )

    def infer(self, images: Tensor) -> Tensor:
        """Run the session on numpy arrays."""
        array = np.ascontiguousarray(images.cpu().numpy())
        try:
            decoded = self.session.run(None, {self.input: array})[0]
        except Exception as error:  # ONNX Runtime has a dozen kinds of errors, of no common class
            shape, words = "x".join(map(str, images.shape)), first_line(error)[:200]
            raise DataError(f"{self.file}: ONNX Runtime fails on {shape} images ({words})") from error
        return torch.from_numpy(decoded).to(self.device)


class DnnBackend(Backend):
    """OpenCV's own network runner: CPU, one image a time, and no metadata, so --data gives the names."""

    def __init__(self, weights: str, device: torch.device) -> None:
        import cv2

        super().__init__(weights, device)
        path = existing_file(weights)
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise DataError(f"{weights}: OpenCV cannot read it ({one_line(error)})") from error
        self.batch = 1

    def infer(self, images: Tensor) -> Tensor:
        """Run the network on a numpy array."""
        import cv2

        self.net.setInput(np.ascontiguousarray(images.cpu().numpy()))
        try:
            return torch.from_numpy(self.net.forward()).to(self.device)
        except cv2.error as error:
            shape = "x".join(map(str, images.shape))
            raise ConfigError(
                f"{self.file}: OpenCV cannot run it on {shape} images ({one_line(error)})"
            ) from error


def _open_session(weights: str, device: torch.device, wanted: str) -> Any:
    path = existing_file(weights)
    disable_ort_telemetry()
    try:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as runtime
    except ImportError as error:
        raise ConfigError(f"{weights} needs ONNX Runtime: pip install onnxruntime") from error
    available = onnxruntime.get_available_providers()
    providers = wanted.split(",") if wanted else ["CPUExecutionProvider"]
    if not wanted and device.type == "cuda" and "CUDAExecutionProvider" in available:
        providers.insert(0, "CUDAExecutionProvider")
    if set(providers) - set(available):
        raise ConfigError(
            f"--runtime {wanted}: expected of {', '.join(available)}, which ONNX Runtime has here"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as many as PyTorch was given
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except (
        runtime.Fail,
        runtime.InvalidArgument,
        runtime.InvalidGraph,
        runtime.InvalidProtobuf,
        runtime.NoModel,
        runtime.NotImplemented,
        runtime.RuntimeException,
    ) as error:
        raise DataError(f"{weights}: ONNX Runtime cannot open it ({one_line(error)})") from error
