"""AOTInductor (.pt2): the model compiled to machine code, for the kind of machine that makes it."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.export.export_options import ExportOptions
from utils.export.output import move


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Compile `model` for `images` (B, 3, H, W) on their device."""
    from torch._inductor import aoti_compile_and_package

    program = torch.export.export(model, (images.contiguous(),))
    told = {key: str(value) for key, value in options.metadata(images).items()}
    with tempfile.TemporaryDirectory(prefix="pt2-") as folder:
        draft = Path(folder, "model.pt2")
        aoti_compile_and_package(
            program, package_path=str(draft), inductor_configs={"aot_inductor.metadata": told}
        )
        move(draft, path)
