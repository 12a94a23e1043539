"""TorchScript: the traced model, with shape, stride and names in it."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.paths import atomic_write
from utils.export.options import ExportOptions


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Trace `model` on `images` (B, 3, H, W) and save it, whole or not at all."""
    with warnings.catch_warnings():
        # PyTorch announces the end of TorchScript at every trace; it works, and users asked for it.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, images, strict=False)
        facts = {"shape": list(images.shape), "stride": options.stride, "names": options.names}
        extra = {"config.txt": json.dumps(facts)}
        content = io.BytesIO()
        if options.optimize:
            content.write(_for_mobile(traced)._save_to_buffer_for_lite_interpreter(_extra_files=extra))
        else:
            torch.jit.save(traced, content, _extra_files=extra)
    with atomic_write(path) as file:
        file.write(content.getbuffer())


def _for_mobile(traced: torch.jit.ScriptModule) -> torch.jit.ScriptModule:
    from torch.utils.mobile_optimizer import optimize_for_mobile

    try:
        optimized: torch.jit.ScriptModule = optimize_for_mobile(traced)
    except RuntimeError as error:
        if "XNNPACK" not in str(error):
            raise
        raise ConfigError("--optimize: this build of PyTorch lacks XNNPACK; leave the flag out") from error
    return optimized
