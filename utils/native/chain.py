"""A chain of depth-wise 1-D convolutions along rows and columns as one operation; chain.c explains how.

Outputs and gradients equal those of separate convolutions up to rounding.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from utils.native.chain_triton import is_triton, triton_chain
from utils.native.layout import dense, memory_format
from utils.native.library import is_traced, is_watched, library

LANES = 16  # channels that chain.c processes at a time, at most: with AVX-512


class _Stage(ctypes.Structure):
    _fields_ = [
        ("taps", ctypes.c_int64),
        ("dilation", ctypes.c_int64),
        ("weight", ctypes.c_void_p),
        ("bias", ctypes.c_void_p),
        ("grad_weight", ctypes.c_void_p),
        ("grad_bias", ctypes.c_void_p),
    ]


class _Shape(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "images",
            "channels",
            "height",
            "width",
            "image_step",
            "channel_step",
            "pixel_step",
            "pairs",
            "threads",
        )
    ]


def separable_chain(x: Tensor, stages: Sequence[nn.Conv2d]) -> Tensor:
    """Apply a chain of convolutions to x, (B, C, H, W) float -> (B, C, H, W).

    Args:
        x: in any memory format, which the result has too.
        stages: depth-wise convolutions of odd length with bias that keep H and W: one along the rows, one
            along the columns, and optionally another such pair.
    """
    if is_triton(x, stages):
        return triton_chain(x, stages)
    if not is_native(x, stages):
        for stage in stages:
            x = stage(x)
        return x
    values = [value for stage in stages for value in (stage.weight, stage.bias) if value is not None]
    dilations = tuple(max(stage.dilation) for stage in stages)  # a module has it as (vertical, horizontal)
    if torch.is_grad_enabled():
        return _Chain.apply(x.float(), dilations, *values)
    return _run(dense(x.float()), dilations, values)  # autograd's bookkeeping takes 20 µs


def is_native(x: Tensor, stages: Sequence[nn.Conv2d]) -> bool:
    """Return whether the compiled chain can and should run: float32 on the CPU, no tracing, no hooks.

    With many threads and few channels separate convolutions are faster, as PyTorch also splits rows among
    threads.
    """
    if is_traced() or is_watched(*stages) or x.dim() != 4 or len(stages) not in (2, 4):
        return False
    if x.device.type != "cpu" or type(x) not in (Tensor, nn.Parameter) or x.numel() == 0:
        return False
    autocast = torch.is_autocast_enabled("cpu")  # in which the chain stays in float32, unlike convolutions
    fits = x.dtype == torch.float32 or (autocast and x.dtype == torch.bfloat16)
    if not fits or any(not _is_plain(stage, x.shape[1]) for stage in stages):
        return False
    tasks = x.shape[0] * -(-x.shape[1] // LANES)
    return 3 * tasks >= torch.get_num_threads() and library() is not None


def _is_plain(stage: nn.Module, channels: int) -> bool:
    return (
        type(stage) is nn.Conv2d
        and stage.bias is not None
        and stage.in_channels == channels
        and stage.weight.dtype == torch.float32
    )


class _Chain(torch.autograd.Function):
    """chain.c for autograd: only the input is saved, and the maps between stages are recomputed."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dilations: tuple[int, ...], *values: Tensor) -> Tensor:
        x = dense(x)
        y = _run(x, dilations, values)
        ctx.save_for_backward(x, *values)
        ctx.dilations = dilations
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, *values = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=memory_format(x))
        grad_x = torch.empty_like(x)
        grads = [torch.empty_like(value, memory_format=torch.contiguous_format) for value in values]
        shape, stages, _kept = _describe(x, ctx.dilations, values, grads)
        _call("chain_backward", shape, stages, x, grad_y, grad_x)
        return grad_x, None, *grads


def _run(x: Tensor, dilations: Sequence[int], values: Sequence[Tensor]) -> Tensor:
    y = torch.empty_like(x)
    shape, stages, _kept = _describe(x, dilations, values)
    _call("chain_forward", shape, stages, x, y)
    return y


def _call(name: str, shape: _Shape, stages: Any, *maps: Tensor) -> None:
    kernels = library()
    assert kernels is not None
    pointers = [ctypes.c_void_p(value.data_ptr()) for value in maps]
    if getattr(kernels, name)(ctypes.byref(shape), stages, *pointers):
        raise MemoryError(f"large kernel attention: no memory for a map of {tuple(maps[0].shape)}")


def _describe(
    x: Tensor, dilations: Sequence[int], values: Sequence[Tensor], grads: Sequence[Tensor] = ()
) -> tuple[_Shape, Any, list[Tensor]]:
    """Return the structures of chain.c, and tensors that must not be freed before them."""
    images, channels, height, width = x.shape
    last = memory_format(x) == torch.channels_last
    steps = (1, channels) if last else (height * width, 1)
    image_step = channels * height * width
    pairs = len(dilations) // 2
    shape = _Shape(*x.shape, image_step, *steps, pairs, torch.get_num_threads())
    kept = [value if value.is_contiguous() else value.contiguous() for value in values]
    stages = (_Stage * len(dilations))()
    for index, dilation in enumerate(dilations):
        weight, bias = kept[2 * index : 2 * index + 2]
        of_grads = [grad.data_ptr() for grad in grads[2 * index : 2 * index + 2]]
        taps = weight.shape[2] * weight.shape[3]
        stages[index] = _Stage(taps, dilation, weight.data_ptr(), bias.data_ptr(), *of_grads)
    return shape, stages, kept
