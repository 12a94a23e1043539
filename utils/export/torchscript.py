"""TorchScript: the traced model, with shape, stride and names in it."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.paths import atomic_write
from utils.export.export_options import ExportOptions


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Trace `model` on `images` (B, 3, H, W) and save it, whole or not at all."""
    if options.half:
        model, images = deepcopy(model).half(), images.half()
    metadata = {"shape": list(images.shape), "stride": options.stride, "names": options.names}
    extra = {"config.txt": json.dumps(metadata)}
    content = io.BytesIO()
    program = traced(model, images)
    with _quiet():
        if options.optimize:
            content.write(_for_mobile(program)._save_to_buffer_for_lite_interpreter(_extra_files=extra))
        else:
            torch.jit.save(program, content, _extra_files=extra)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def traced(model: nn.Module, images: Tensor) -> torch.jit.ScriptModule:
    """The model as the program that it ran for `images`."""
    with _quiet():
        program: torch.jit.ScriptModule = torch.jit.trace(model, images, strict=False)
    return program


@contextmanager
def _quiet() -> Iterator[None]:
    """PyTorch announces the end of TorchScript at every step; it works, and users asked for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _for_mobile(traced: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    from torch.utils.mobile_optimizer import optimize_for_mobile

    try:
        optimized: torch.jit.ScriptModule = optimize_for_mobile(traced)
    except RuntimeError as error:
        if "XNNPACK" not in str(error):
            raise
        raise ConfigError("--optimize: this build of PyTorch lacks XNNPACK; leave the flag out") from error
    return optimized
