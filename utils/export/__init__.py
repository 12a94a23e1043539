"""Exporters: `export_<format>(model, images, path, settings)`, found by the format's name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from models.yolo import DetectionModel
    from utils.export.export_settings import ExportSettings

    # model, example images (B, 3, H, W), file or folder to write, settings
    ExportFunction = Callable[[DetectionModel, Tensor, Path, ExportSettings], None]

MODULES = {
    "torchscript": "pytorch",
    "pt2": "pytorch",
    "onnx": "onnx",
    "openvino": "openvino",
    "engine": "engine",
    "coreml": "coreml",
    "saved_model": "tensorflow",
    "pb": "tensorflow",
    "tfjs": "tensorflow",
    "tflite": "tflite",
    "edgetpu": "tflite",
    "paddle": "paddle",
    "executorch": "executorch",
    "ncnn": "ncnn",
    "yolov5": "yolov5",
}


def export_function(name: str) -> ExportFunction:
    """Return the function that writes a format; its module is imported here, as packages are heavy."""
    module = import_module(f"utils.export.{MODULES[name]}")
    function: ExportFunction = getattr(module, f"export_{name}")
    return function
