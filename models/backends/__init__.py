"""Open a model file with the runtime that its name tells; utils/base/formats.py is the table of names."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError, DataError
from utils.base.formats import Format, format_of

if TYPE_CHECKING:
    import torch

    from models.backends.base import Backend


# Format -> module, class, and which of the caller's choices mean something to it.
_CLASSES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "torchscript": ("torchscript", "TorchScriptBackend", ("half",)),
    "onnx": ("onnx", "OnnxBackend", ("runtime",)),
    "dnn": ("onnx", "DnnBackend", ()),
    "openvino": ("openvino", "OpenVinoBackend", ("half", "runtime")),
    "engine": ("tensorrt", "TensorRtBackend", ()),
    "coreml": ("coreml", "CoreMlBackend", ()),
    "saved_model": ("tensorflow", "SavedModelBackend", ()),
    "pb": ("tensorflow", "GraphDefBackend", ()),
    "tflite": ("litert", "LiteRtBackend", ()),
    "edgetpu": ("litert", "EdgeTpuBackend", ()),
    "paddle": ("paddle", "PaddleBackend", ()),
    "executorch": ("executorch", "ExecuTorchBackend", ()),
    "pt2": ("aoti", "AotiBackend", ()),
    "ncnn": ("ncnn", "NcnnBackend", ()),
    "triton": ("triton", "TritonBackend", ()),
}


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
    """Open one model, or several checkpoints as an ensemble.

    Args:
        weights: file or files; only .pt files can be several.
        device: where to run.
        names: class names for a file that holds none (`--data`).
        half: half precision, where the format and the device allow it.
        dnn: run ONNX with OpenCV.
        fuse: fold batch norms of checkpoints into their convolutions.
        runtime: what the file's runtime is to use: providers of ONNX Runtime, a device of OpenVINO.

    Raises:
        ConfigError: a format that cannot be opened here, or several files of which one is no checkpoint.
        DataError: a file that is missing or damaged.
    """
    files = [str(weights)] if isinstance(weights, str | Path) else [str(file) for file in weights]
    formats = [recognise(file) for file in files]
    if len(files) != 1 and any(kind.name != "pt" for kind in formats):
        raise ConfigError(f"--weights {' '.join(files)}: only .pt files can be joined to an ensemble")
    kind = formats[0].name
    if dnn and kind != "onnx":
        raise ConfigError(f"--dnn runs .onnx files with OpenCV; {files[0]} is none")
    if runtime and kind not in ("onnx", "openvino"):
        raise ConfigError(f"--runtime {runtime}: chooses for ONNX and OpenVINO files; {files[0]} is neither")
    if kind == "pt":
        from models.backends.pytorch import PyTorchBackend

        backend: Backend = PyTorchBackend(files, device, half=half, fuse=fuse)
    else:
        backend = _open(files[0], "dnn" if dnn else kind, device, half=half, runtime=runtime)
    backend.name_classes(names)
    return backend


def recognise(file: str) -> Format:
    """A file's format from its name.

    Raises:
        DataError: a `.pt` file that is a TorchScript program. Checkpoints are read as inert data, so
            whoever wants a program to run has to say so by its name.
    """
    kind = format_of(file)
    if kind.name == "pt" and _holds_program(Path(file).expanduser()):
        raise DataError(
            f"--weights {file}: not a checkpoint but a TorchScript program; "
            "if you trust where it comes from, rename it to end in .torchscript"
        )
    return kind


def _open(file: str, kind: str, device: torch.device, **choices: Any) -> Backend:
    """Import the one runtime that is needed, and open the file."""
    if kind not in _CLASSES:
        raise ConfigError(f"--weights {file}: TensorFlow.js models run in browsers, not in Python")
    module, name, known = _CLASSES[kind]
    opened = getattr(import_module(f"models.backends.{module}"), name)
    backend: Backend = opened(file, device, **{key: choices[key] for key in known})
    return backend


def _holds_program(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive: those hold a `code` folder, checkpoints do not."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
