"""The precision of the forward pass: float32, or half of it where that gives the same boxes."""

from __future__ import annotations

import torch
from torch import nn

from utils.base.errors import ConfigError
from utils.base.log import LOG

CHOICES = ("auto", "off", "fp16", "bf16")

_TOLERANCE = 0.1  # of the image's side; broken half precision is off by far more, or not finite
_SIDE = 256


def choose_precision(wanted: str, model: nn.Module) -> torch.dtype | None:
    """What to compute in under autocast; None: float32 throughout.

    Args:
        wanted: of `--amp`. auto: float16 on CUDA if the boxes stay the same, which some cards fail.
        model: on its device.

    Raises:
        ConfigError: the device cannot do it.
    """
    kind = next(model.parameters()).device.type
    if wanted == "off":
        return None
    if wanted == "auto":
        return torch.float16 if amp_works(model) else None
    if wanted == "fp16":
        if kind != "cuda":
            raise ConfigError(f"--amp fp16: needs a CUDA GPU, and this is {kind.upper()}; bf16 may do here")
        return torch.float16
    if kind == "cuda" and not torch.cuda.is_bf16_supported():
        raise ConfigError("--amp bf16: this GPU does not have it; fp16 does")
    if kind == "cpu" and not torch.backends.mkldnn.is_available():
        raise ConfigError("--amp bf16: this build of torch does not have it on CPUs; leave it out")
    return torch.bfloat16


@torch.inference_mode()
def amp_works(model: nn.Module) -> bool:
    """Compare the model's boxes in float32 and under autocast on a fixed image; only CUDA can pass."""
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
