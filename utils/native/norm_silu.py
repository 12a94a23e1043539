"""Batch norm in training mode and SiLU as one operation; norm_silu.c explains why."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from utils.native.library import is_traced, is_watched, library

LANES = 16  # channels that norm_silu.c processes at a time


class _Shape(ctypes.Structure):
    _fields_ = [
        ("pixels", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("grad_step", ctypes.c_int64),
        ("eps", ctypes.c_float),
    ]


def fits(x: Tensor, norm: nn.BatchNorm2d, act: nn.Module) -> bool:
    """Return whether `norm_silu` can replace act(norm(x)): in training, float32 on the CPU, channels last."""
    return not is_traced() and (
        norm.training
        and type(norm) is nn.BatchNorm2d
        and type(act) is nn.SiLU
        and x.device.type == "cpu"
        and type(x) is Tensor
        and x.dtype == torch.float32
        and x.shape[1] % LANES == 0
        and x.numel() > x.shape[1]
        and x.is_contiguous(memory_format=torch.channels_last)
        and norm.affine
        and norm.track_running_stats
        and norm.momentum is not None
        and not is_watched(norm, act)
        and library() is not None
    )


def norm_silu(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
    """Return silu(norm(x)) and update the running statistics, as `norm` does in training mode.

    Args:
        x: (B, C, H, W) float32, channels last in memory, for which `fits` is true.
        norm: the batch norm, with its weight, bias, eps, momentum and running statistics.
    """
    y, mean, variance = _NormSiLU.apply(x, norm.weight, norm.bias, norm.eps)
    with torch.no_grad():
        pixels = x.numel() // x.shape[1]
        assert norm.running_mean is not None and norm.running_var is not None and norm.momentum is not None
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (pixels / (pixels - 1)), norm.momentum)
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    return y


class _NormSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, ...]:
        y = torch.empty_like(x)
        mean, variance = torch.empty_like(bias), torch.empty_like(bias)
        _call("norm_silu_forward", x, eps, x, weight, bias, y, mean, variance)
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance)
        return y, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance = ctx.saved_tensors
        if not (step := _pixel_step(grad_y)):
            grad_y = grad_y.contiguous(memory_format=torch.channels_last)
        grads = torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
        _call("norm_silu_backward", x, ctx.eps, x, weight, bias, mean, variance, grad_y, *grads, step=step)
        return *grads, None


def _pixel_step(x: Tensor) -> int:
    """Return the distance of neighbouring pixels in memory, in floats, for channels last.

    The map may be a slice of the channels of a wider one, as the gradient of a concatenation is; it need not
    be copied then. 0 for any other layout.
    """
    _, _, height, width = x.shape
    of_image, of_channel, of_row, step = x.stride()
    is_part = of_channel == 1 and of_row == width * step and of_image == height * of_row
    return step if is_part and step >= x.shape[1] else 0


def _call(name: str, x: Tensor, eps: float, *values: Tensor, step: int = 0) -> None:
    kernels = library()
    assert kernels is not None
    shape = _Shape(x.numel() // x.shape[1], x.shape[1], torch.get_num_threads(), step or x.shape[1], eps)
    pointers = [ctypes.c_void_p(value.data_ptr()) for value in values]
    if getattr(kernels, name)(ctypes.byref(shape), *pointers):
        raise MemoryError(f"batch norm: no memory for the sums of a map of {tuple(x.shape)}")
