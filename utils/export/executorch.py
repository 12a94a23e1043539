"""ExecuTorch (.pte) for phones and microcontrollers, with XNNPACK kernels."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.export.export_settings import ExportSettings, append_metadata, move


def export_executorch(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Lower `model` to a program; its metadata is appended as a zip archive.

    Raises:
        ConfigError: ExecuTorch is missing.
    """
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise ConfigError(f"--include executorch needs: {FORMATS['executorch'].install}") from error
    program = torch.export.export(model, (images.contiguous(),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    with tempfile.TemporaryDirectory(prefix="executorch-") as folder:
        draft = Path(folder, "model.pte")
        draft.write_bytes(lowered.buffer)
        append_metadata(draft, settings.metadata(images))
        move(draft, path)
