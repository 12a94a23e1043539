"""Automatic mixed precision: choose the precision of the forward pass, and check FP16 against FP32."""

from __future__ import annotations

import torch
from torch import nn

from utils.base.errors import ConfigError
from utils.base.log import LOG

CHOICES = ("auto", "off", "fp16", "bf16")

_TOLERANCE = 0.1  # of the image size; broken FP16 differs by far more, or is not finite
_SIDE = 256


def choose_precision(wanted: str, model: nn.Module) -> torch.dtype | None:
    """Return the dtype for autocast; None: FP32 throughout.

    Args:
        wanted: value of `--amp`. auto: FP16 on CUDA if the boxes stay the same, which some GPUs fail.
        model: on its device.

    Raises:
        ConfigError: the device does not support it.
    """
    device_type = next(model.parameters()).device.type
    if wanted == "off":
        return None
    if wanted == "auto":
        return torch.float16 if amp_works(model) else None
    if wanted == "fp16":
        if device_type != "cuda":
            raise ConfigError(f"--amp fp16: needs a CUDA GPU, and this is {device_type.upper()}; try bf16")
        return torch.float16
    if device_type == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("--amp bf16: this GPU does not support it; use fp16")
    if device_type == "cpu" and not torch.backends.mkldnn.is_available():
        raise ConfigError("--amp bf16: this build of torch does not support it on the CPU; use off")
    return torch.bfloat16


@torch.inference_mode()
def amp_works(model: nn.Module) -> bool:
    """Return whether boxes under autocast equal those in FP32 on a fixed image; False on other than CUDA."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return False
    training = model.training
    images = torch.rand(1, 3, _SIDE, _SIDE, generator=torch.Generator().manual_seed(0)).to(device)
    model.eval()
    try:
        full = model(images)[0]
        with torch.autocast(device.type):
            half = model(images)[0].float()
    finally:
        model.train(training)
    works = torch.allclose(full[..., :4] / _SIDE, half[..., :4] / _SIDE, rtol=0.1, atol=_TOLERANCE)
    LOG.info(f"AMP: checks {'passed' if works else 'failed, training in float32'}")
    return works
