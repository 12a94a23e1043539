"""Does half precision give the boxes that float32 gives? Some cards answer no."""

from __future__ import annotations

import torch
from torch import nn

from utils.base.log import LOG

_TOLERANCE = 0.1  # of the picture's side; broken half precision is off by far more, or not finite
_SIDE = 256


@torch.inference_mode()
def amp_works(model: nn.Module) -> bool:
    """Compare the model's boxes in float32 and under autocast on a fixed picture; only CUDA can pass."""
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
