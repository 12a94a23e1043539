"""Open a model file with the runtime that its name tells; utils/base/formats.py is the table of names."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from utils.base.errors import ConfigError, DataError, NotReadyError
from utils.base.formats import Format, format_of

if TYPE_CHECKING:
    import torch

    from models.backends.base import Backend


def load_backend(
    weights: str | Path | Sequence[str | Path],
    device: torch.device,
    *,
    names: dict[int, str] | None = None,
    half: bool = False,
    dnn: bool = False,
    fuse: bool = True,
) -> Backend:
    """Open one model, or several checkpoints as an ensemble.

    Args:
        weights: file or files; only .pt files can be several.
        device: where to run.
        names: class names for a file that holds none (`--data`).
        half: half precision, where the format and the device allow it.
        dnn: run ONNX with OpenCV.
        fuse: fold batch norms of checkpoints into their convolutions.

    Raises:
        ConfigError: a format that cannot be opened (yet), or several files of which one is no checkpoint.
        DataError: a file that is missing or damaged.
    """
    files = [str(weights)] if isinstance(weights, str | Path) else [str(file) for file in weights]
    formats = [recognise(file) for file in files]
    for file, kind in zip(files, formats, strict=True):
        if not kind.ready:
            raise NotReadyError(f"--weights {file}: {kind.title} models are not ready yet; use .pt, .onnx or "
                                ".torchscript")  # fmt: skip
    if len(files) != 1 and any(kind.name != "pt" for kind in formats):
        raise ConfigError(f"--weights {' '.join(files)}: only .pt files can be joined to an ensemble")
    backend = _open(files, formats[0].name, device, half=half, dnn=dnn, fuse=fuse)
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


def _open(files: list[str], kind: str, device: torch.device, *, half: bool, dnn: bool, fuse: bool) -> Backend:
    """Import the one runtime that is needed, and open the file."""
    if dnn and kind != "onnx":
        raise ConfigError(f"--dnn runs .onnx files with OpenCV; {files[0]} is none")
    if kind == "pt":
        from models.backends.pytorch import PyTorchBackend

        return PyTorchBackend(files, device, half=half, fuse=fuse)
    if kind == "torchscript":
        from models.backends.torchscript import TorchScriptBackend

        return TorchScriptBackend(files[0], device, half=half)
    from models.backends.onnx import DnnBackend, OnnxBackend

    return DnnBackend(files[0], device) if dnn else OnnxBackend(files[0], device)


def _holds_program(path: Path) -> bool:
    """Whether a zip file is a TorchScript archive: those hold a `code` folder, checkpoints do not."""
    if not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
