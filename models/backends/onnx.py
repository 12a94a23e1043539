"""ONNX files, run by ONNX Runtime or, with `--dnn`, by OpenCV."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import Metadata
from models.backends.onnx_file import output_dimensions
from utils.base.device import disable_ort_telemetry
from utils.base.errors import ConfigError, DataError, first_line, one_line
from utils.base.formats import existing_file


class OnnxBackend(Backend):
    """ONNX Runtime, on CUDA if onnxruntime-gpu is installed."""

    def __init__(self, weights: str, device: torch.device, *, runtime: str = "") -> None:
        super().__init__(weights, device)
        self.session = _open_session(weights, device, runtime)
        (images, *_), meta = self.session.get_inputs(), self.session.get_modelmeta().custom_metadata_map
        self.input = images.name
        self.fp16 = images.type == "tensor(float16)"
        self.read_input_shape(images.shape)
        values = {key: meta[key] for key in ("task", "stride", "names", "nms") if key in meta}
        outputs = self.session.get_outputs()
        self.count_outputs(len(outputs), len(outputs[0].shape))
        self.apply_metadata(Metadata.of(values, weights))

    def infer(self, images: Tensor) -> Outputs:
        """Run the session on a numpy array."""
        array = np.ascontiguousarray(images.cpu().numpy())
        try:
            outputs = self.session.run(None, {self.input: array})
        except Exception as error:  # ONNX Runtime has many error classes without a common base
            shape, reason = "x".join(map(str, images.shape)), first_line(error)[:200]
            raise DataError(f"{self.file}: ONNX Runtime fails on {shape} images ({reason})") from error
        return [torch.from_numpy(output).to(self.device) for output in outputs]


class DnnBackend(Backend):
    """OpenCV DNN on the CPU, one image at a time; it reads no metadata, so --data gives the names."""

    def __init__(self, weights: str, device: torch.device) -> None:
        import cv2

        super().__init__(weights, device)
        path = existing_file(weights)
        try:
            self.net = cv2.dnn.readNetFromONNX(str(path))
        except cv2.error as error:
            raise DataError(f"{weights}: OpenCV cannot read it ({one_line(error)})") from error
        self.batch = 1
        names = self.net.getUnconnectedOutLayersNames()  # before 4.6 in the order of the layers
        ours = ["output0", "output1"]
        self.outputs = ours if sorted(names) == ours else names
        self.count_outputs(len(self.outputs), max(output_dimensions(path), default=0))

    def infer(self, images: Tensor) -> Outputs:
        """Run the network on a numpy array."""
        import cv2

        self.net.setInput(np.ascontiguousarray(images.cpu().numpy()))
        try:
            return [torch.from_numpy(output).to(self.device) for output in self.net.forward(self.outputs)]
        except cv2.error as error:
            shape = "x".join(map(str, images.shape))
            raise ConfigError(
                f"{self.file}: OpenCV cannot run it on {shape} images ({one_line(error)})"
            ) from error


def _open_session(weights: str, device: torch.device, runtime: str) -> Any:
    path = existing_file(weights)
    disable_ort_telemetry()
    onnxruntime = import_runtime("onnxruntime", weights, "ONNX Runtime: pip install onnxruntime")
    errors = import_runtime("onnxruntime.capi.onnxruntime_pybind11_state", weights, "onnxruntime")
    available = onnxruntime.get_available_providers()
    providers = runtime.split(",") if runtime else ["CPUExecutionProvider"]
    if not runtime and device.type == "cuda" and "CUDAExecutionProvider" in available:
        providers.insert(0, "CUDAExecutionProvider")
    if set(providers) - set(available):
        raise ConfigError(
            f"--runtime {runtime}: expected one or several of {', '.join(available)} of this ONNX Runtime"
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()  # as PyTorch
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=providers)
    except (
        errors.Fail,
        errors.InvalidArgument,
        errors.InvalidGraph,
        errors.InvalidProtobuf,
        errors.NoModel,
        errors.NotImplemented,
        errors.RuntimeException,
    ) as error:
        raise DataError(f"{weights}: ONNX Runtime cannot open it ({one_line(error)})") from error
