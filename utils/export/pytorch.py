"""PyTorch's own formats: TorchScript (.torchscript) and AOTInductor packages (.pt2)."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.paths import atomic_write
from utils.export.export_settings import ExportSettings, move


def export_torchscript(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Trace `model` on `images` (B, 3, H, W); shape, stride and names are stored in the file."""
    if settings.half:
        model, images = deepcopy(model).half(), images.half()
    metadata = {"shape": list(images.shape), **settings.metadata()}
    extra = {"config.txt": json.dumps(metadata)}
    content = io.BytesIO()
    program = trace(model, images)
    with _no_warnings():
        if settings.optimize:
            content.write(_for_mobile(program)._save_to_buffer_for_lite_interpreter(_extra_files=extra))
        else:
            torch.jit.save(program, content, _extra_files=extra)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def export_pt2(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Compile `model` for `images` (B, 3, H, W) on their device; it runs on machines of the same kind."""
    from torch._inductor import aoti_compile_and_package

    program = torch.export.export(model, (images.contiguous(),))
    metadata = {key: str(value) for key, value in settings.metadata(images).items()}
    with tempfile.TemporaryDirectory(prefix="pt2-") as folder:
        draft = Path(folder, "model.pt2")
        aoti_compile_and_package(
            program, package_path=str(draft), inductor_configs={"aot_inductor.metadata": metadata}
        )
        move(draft, path)


def trace(model: nn.Module, images: Tensor) -> torch.jit.ScriptModule:
    """Trace `model` on `images` (B, 3, H, W)."""
    with _no_warnings():
        program: torch.jit.ScriptModule = torch.jit.trace(model, images, strict=False)
    return program


@contextmanager
def _no_warnings() -> Iterator[None]:
    """Suppress warnings: every call of torch.jit announces that TorchScript is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _for_mobile(program: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    from torch.utils.mobile_optimizer import optimize_for_mobile

    try:
        optimized: torch.jit.ScriptModule = optimize_for_mobile(program)
    except RuntimeError as error:
        if "XNNPACK" not in str(error):
            raise
        raise ConfigError("--optimize: this build of PyTorch lacks XNNPACK; leave the flag out") from error
    return optimized
