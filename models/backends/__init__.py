"""Load a model with the runtime for its file name; utils/base/formats.py is the table of names."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError, DataError
from utils.base.formats import Format, format_of
from utils.base.inputs import expand_user
from utils.base.log import LOG

if TYPE_CHECKING:
    import torch

    from models.backends.base import Backend


# Format -> module, class, and the keywords of `load_backend` that it takes.
_CLASSES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "torchscript": ("pytorch", "TorchScriptBackend", ("half",)),
    "onnx": ("onnx", "OnnxBackend", ("runtime",)),
    "dnn": ("onnx", "DnnBackend", ()),
    "openvino": ("openvino", "OpenVinoBackend", ("half", "runtime")),
    "engine": ("tensorrt", "TensorRtBackend", ()),
    "coreml": ("coreml", "CoreMlBackend", ()),
    "saved_model": ("tensorflow", "SavedModelBackend", ()),
    "pb": ("tensorflow", "GraphDefBackend", ()),
    "tflite": ("tensorflow", "LiteRtBackend", ()),
    "edgetpu": ("tensorflow", "EdgeTpuBackend", ()),
    "paddle": ("paddle", "PaddleBackend", ()),
    "executorch": ("executorch", "ExecuTorchBackend", ()),
    "pt2": ("pytorch", "AotiBackend", ()),
    "ncnn": ("ncnn", "NcnnBackend", ()),
    "triton": ("triton", "TritonBackend", ()),
}


# Formats that hold a program, which runs with the rights of this process.
_PROGRAMS = ("torchscript", "pt2", "engine", "saved_model", "pb", "executorch")


@cache
def _say_that_it_is_a_program(title: str) -> None:
    LOG.info(f"{title} files are programs: open only those that you trust")


def load_backend(
    weights: str | Path | Sequence[str | Path],
    device: torch.device,
    *,
    names: dict[int, str] | None = None,
    half: bool = False,
    dnn: bool = False,
    fuse: bool = True,
    runtime: str = "",
) -> Backend:
    """Load one model, or several checkpoints as an ensemble.

    Args:
        weights: model path(s); several must be .pt files.
        device: where to run.
        names: class names for a file that holds none (`--data`).
        half: FP16, where the format and the device support it.
        dnn: run ONNX with OpenCV.
        fuse: fold batch norms of checkpoints into their convolutions.
        runtime: ONNX Runtime providers, an OpenVINO device, or `bf16`, `graph` or both for checkpoints.

    Raises:
        ConfigError: a format that cannot be run here, or several files that are not all checkpoints.
        DataError: a file that is missing or corrupt.
    """
    files = [str(weights)] if isinstance(weights, str | Path) else [str(file) for file in weights]
    formats = [detect_format(file) for file in files]
    if len(files) != 1 and any(file_format.name != "pt" for file_format in formats):
        raise ConfigError(f"--weights {' '.join(files)}: only .pt files can form an ensemble")
    name = formats[0].name
    if dnn and name != "onnx":
        raise ConfigError(f"--dnn runs .onnx files with OpenCV, {files[0]} is not one")
    if runtime and name not in ("onnx", "openvino", "pt"):
        raise ConfigError(f"--runtime {runtime}: is for ONNX, OpenVINO and .pt files, {files[0]} is none")
    if name == "pt":
        from models.backends.pytorch import PyTorchBackend

        backend: Backend = PyTorchBackend(files, device, half=half, fuse=fuse, runtime=runtime)
    else:
        if name in _PROGRAMS:
            _say_that_it_is_a_program(formats[0].title)
        backend = _open(files[0], "dnn" if dnn else name, device, half=half, runtime=runtime)
    backend.set_missing_names(names)
    return backend


def detect_format(file: str) -> Format:
    """Return the format of a model file from its name.

    Raises:
        DataError: a `.pt` file that is a TorchScript program. Checkpoints are read as data and cannot run
            code; only a file named .torchscript may.
    """
    file_format = format_of(file)
    if file_format.name == "pt" and _holds_program(expand_user(file)):
        raise DataError(
            f"--weights {file}: not a checkpoint but a TorchScript program; "
            "if you trust its origin, rename it to end in .torchscript"
        )
    return file_format


def _open(file: str, file_format: str, device: torch.device, **choices: Any) -> Backend:
    """Import the runtime of a format, and load the file."""
    if file_format not in _CLASSES:
        raise ConfigError(f"--weights {file}: TensorFlow.js models run in browsers, not in Python")
    module, class_name, accepted = _CLASSES[file_format]
    backend_class = getattr(import_module(f"models.backends.{module}"), class_name)
    backend: Backend = backend_class(file, device, **{key: choices[key] for key in accepted})
    return backend


def _holds_program(path: Path) -> bool:
    """Return whether a file is a TorchScript archive: unlike checkpoints they have a folder `code`."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
