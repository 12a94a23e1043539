"""The table of model files: what `export.py` makes, and what `detect.py` and `val.py` open."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlparse

from utils.base.errors import ConfigError, DataError


@dataclass(frozen=True)
class Format:
    """One kind of model file; `name` is the word after `--include`."""

    name: str
    title: str
    suffix: str  # how the file's (or folder's) name ends
    ready: bool = False  # False: the name is known, the feature does not exist yet


FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        Format("torchscript", "TorchScript", ".torchscript", ready=True),
        Format("onnx", "ONNX", ".onnx", ready=True),
        Format("openvino", "OpenVINO", "_openvino_model"),
        Format("engine", "TensorRT", ".engine"),
        Format("coreml", "Core ML", ".mlpackage"),
        Format("saved_model", "TensorFlow SavedModel", "_saved_model"),
        Format("pb", "TensorFlow GraphDef", ".pb"),
        Format("tflite", "TensorFlow Lite", ".tflite"),
        Format("edgetpu", "Edge TPU", "_edgetpu.tflite"),
        Format("tfjs", "TensorFlow.js", "_web_model"),
        Format("paddle", "PaddlePaddle", "_paddle_model"),
    )
}
PYTORCH = Format("pt", "PyTorch", ".pt", ready=True)
TRITON = Format("triton", "Triton server", "")
_MORE_SUFFIXES = {".mlmodel": "coreml"}


def known_format(name: str, flag: str = "--include") -> Format:
    """Look up a word of `--include`.

    Raises:
        ConfigError: there is no such format.
    """
    if found := FORMATS.get(name.lower()):
        return found
    near = difflib.get_close_matches(name.lower(), FORMATS, n=1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ConfigError(f"{flag} {name}: unknown format{hint}; known are {', '.join(FORMATS)}")


def format_of(weights: str | Path) -> Format:
    """Tell a model's format from its name; a file without a telling name counts as a PyTorch checkpoint."""
    name = str(weights).rstrip("/\\").lower()
    url = urlparse(name)
    if url.scheme in ("http", "https", "grpc") and url.path in ("", "/"):
        return TRITON
    longest_first = sorted(FORMATS.values(), key=lambda item: -len(item.suffix))
    for item in longest_first:
        if name.endswith(item.suffix):
            return item
    for suffix, word in _MORE_SUFFIXES.items():
        if name.endswith(suffix):
            return FORMATS[word]
    return PYTORCH


def existing_file(weights: str | Path) -> Path:
    """The path of an exported model.

    Raises:
        DataError: there is no such file.
    """
    path = Path(weights).expanduser()
    if not path.is_file():
        raise DataError(f"--weights {weights}: no such file; make it with: python export.py --include ...")
    return path
