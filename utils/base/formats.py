"""Table of model file formats, which `export.py` writes, and `detect.py` and `val.py` load."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from pathlib import Path

from utils.base.errors import ConfigError, DataError
from utils.base.inputs import expand_user, split_url
from utils.base.paths import command_for

_MAKE_IT = f"make it with: {command_for('export.py')} --include ..."


@dataclass(frozen=True)
class Format:
    """A model file format.

    Attributes:
        name: the value of `--include`.
        title: its name in tables and messages.
        suffix: end of the name of its file or folder.
        install: how to install the packages that write and run it.
        subprocess: export in a subprocess, as the converter may crash or change the state of this process.
        runs: whether there is a runtime for Python.
        gpu: whether it runs on CUDA.
        cpu: whether it runs on a CPU.
        endings: suffixes of new files that differ from `suffix`, by precision (`int8`, `half`, or empty).
    """

    name: str
    title: str
    suffix: str
    install: str = ""
    subprocess: bool = False
    runs: bool = True
    gpu: bool = True
    cpu: bool = True
    endings: dict[str, str] = field(default_factory=dict)

    def ending(self, precision: str = "") -> str:
        """Return the suffix of a new file; `precision` is `int8`, `half`, or empty for FP32."""
        return self.endings.get(precision) or self.endings.get("", self.suffix)


FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        Format("torchscript", "TorchScript", ".torchscript"),
        Format("onnx", "ONNX", ".onnx", "pip install onnx onnxruntime", endings={"int8": "-int8.onnx"}),
        Format(
            "openvino",
            "OpenVINO",
            "_openvino_model",
            "pip install openvino nncf",
            gpu=False,
            endings={"int8": "_int8_openvino_model"},
        ),
        Format("engine", "TensorRT", ".engine", "pip install tensorrt onnx", subprocess=True, cpu=False),
        Format("coreml", "Core ML", ".mlpackage", "pip install coremltools", subprocess=True, gpu=False),
        Format(
            "saved_model", "TensorFlow SavedModel", "_saved_model", "pip install tensorflow", subprocess=True
        ),
        Format("pb", "TensorFlow GraphDef", ".pb", "pip install tensorflow", subprocess=True),
        Format(
            "tflite",
            "TensorFlow Lite",
            ".tflite",
            "pip install litert-torch",
            subprocess=True,
            gpu=False,
            endings={"": "-fp32.tflite", "half": "-fp16.tflite", "int8": "-int8.tflite"},
        ),
        Format(
            "edgetpu",
            "Edge TPU",
            "_edgetpu.tflite",
            "pip install litert-torch, and Google's edgetpu_compiler",
            subprocess=True,
            gpu=False,
            cpu=False,
            endings={"": "-int8_edgetpu.tflite"},
        ),
        Format(
            "tfjs",
            "TensorFlow.js",
            "_web_model",
            "pip install tensorflow, pipx install tensorflowjs, pipx inject tensorflowjs 'ydf<0.13'",
            subprocess=True,
            runs=False,
            gpu=False,
        ),
        Format(
            "paddle",
            "PaddlePaddle",
            "_paddle_model",
            "pip install paddlepaddle x2paddle",
            subprocess=True,
            gpu=False,
        ),
        Format("executorch", "ExecuTorch", ".pte", "pip install executorch", subprocess=True, gpu=False),
        Format("pt2", "AOTInductor", ".pt2", "a C++ compiler", subprocess=True),
        Format("ncnn", "NCNN", "_ncnn_model", "pip install ncnn pnnx", subprocess=True, gpu=False),
    )
}
PYTORCH = Format("pt", "PyTorch", ".pt")
# Written by export.py only, and not in FORMATS: its file is a .pt like any other to what reads one.
YOLOV5 = Format("yolov5", "YOLOv5", ".pt", endings={"": "_yolov5.pt"})
EXPORTS = FORMATS | {YOLOV5.name: YOLOV5}  # what `export.py --include` accepts
TRITON = Format("triton", "Triton server", "", "pip install 'tritonclient[all]'")
_MORE_SUFFIXES = {".mlmodel": "coreml"}


def known_format(name: str, formats: dict[str, Format] = FORMATS) -> Format:
    """Return the format of a value of `--include`, one of `formats`.

    Raises:
        ConfigError: there is no such format.
    """
    if known := formats.get(name.lower()):
        return known
    near = difflib.get_close_matches(name.lower(), formats, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"--include {name}: unknown format{hint}; expected one of {', '.join(formats)}")


def format_of(weights: str | Path) -> Format:
    """Return the format of a model path from its suffix; without a known one it is a PyTorch checkpoint."""
    name = str(weights).rstrip("/\\").lower()
    url = split_url(name)
    if url.scheme in ("http", "https", "grpc") and url.path in ("", "/"):
        return TRITON
    longest_first = sorted(FORMATS.values(), key=lambda item: -len(item.suffix))
    for item in longest_first:
        if name.endswith(item.suffix):
            return item
    for suffix, name_of_format in _MORE_SUFFIXES.items():
        if name.endswith(suffix):
            return FORMATS[name_of_format]
    return PYTORCH


def existing_file(weights: str | Path) -> Path:
    """Return the path of an exported model that is a file.

    Raises:
        DataError: there is no such file.
    """
    path = expand_user(weights)
    if not path.is_file():
        raise DataError(f"--weights {weights}: no such file; {_MAKE_IT}")
    return path


def existing_folder(weights: str | Path, *patterns: str) -> tuple[Path, ...]:
    """Return the first file that matches each pattern in an exported model that is a folder.

    Raises:
        DataError: the folder or one of its files does not exist.
    """
    path = expand_user(weights)
    if not path.is_dir():
        raise DataError(f"--weights {weights}: no such folder; {_MAKE_IT}")
    first_files = []
    for pattern in patterns:
        files = sorted(path.glob(pattern))
        if not files:
            raise DataError(f"--weights {weights}: no {pattern} in it")
        first_files.append(files[0])
    return tuple(first_files)


def size_of(path: Path) -> int:
    """Return the size in bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return path.stat().st_size
