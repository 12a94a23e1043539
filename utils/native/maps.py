"""Images as floats, joined maps, SiLU, and decoding of logits into boxes, on all threads; see maps.c."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from utils.native.library import is_traced, library


class _Level(ctypes.Structure):
    _fields_ = [
        *(
            (name, ctypes.c_int64)
            for name in (
                "images",
                "height",
                "width",
                "anchors",
                "numbers",
                "linear",
                "first_row",
                "rows",
                "threads",
            )
        ),
        ("stride", ctypes.c_float),
        ("sizes", ctypes.c_void_p),
    ]


def unit_images(images: Tensor) -> Tensor:
    """Return uint8 images (B, 3, H, W) as float32 in 0-1, x / 255, channels last in memory."""
    kernels = library() if _are_plain_rgb(images) else None
    if kernels is None:
        return images.to(torch.float32, memory_format=torch.channels_last).div_(255)
    count, _, height, width = images.shape
    floats = torch.empty(images.shape, memory_format=torch.channels_last)
    kernels.unit_images(
        ctypes.c_void_p(images.data_ptr()),
        ctypes.c_void_p(floats.data_ptr()),
        *(ctypes.c_int64(number) for number in (count, height * width, torch.get_num_threads())),
    )
    return floats


def _are_plain_rgb(images: Tensor) -> bool:
    return (
        type(images) is Tensor
        and images.device.type == "cpu"
        and images.dtype == torch.uint8
        and images.dim() == 4
        and images.shape[1] == 3
        and images.numel() > 0
        and images.is_contiguous()
        and not is_traced()
    )


def join(maps: Sequence[Tensor]) -> Tensor:
    """Return torch.cat(maps, 1): (B, C1, H, W), (B, C2, H, W), ... -> (B, C1 + C2 + ..., H, W)."""
    if _fit(maps) and len({(len(x), *x.shape[2:]) for x in maps}) == 1:
        joined: Tensor = _Join.apply(*maps) if torch.is_grad_enabled() else _join(maps)
        return joined
    return torch.cat(list(maps), 1)


class _Join(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *maps: Tensor) -> Tensor:
        ctx.channels = [x.shape[1] for x in maps]
        return _join(maps)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad.split(ctx.channels, 1)


def _join(maps: Sequence[Tensor]) -> Tensor:
    kernels = library()
    assert kernels is not None
    images, _, height, width = maps[0].shape
    channels, count = [x.shape[1] for x in maps], len(maps)
    joined = torch.empty((images, sum(channels), height, width), memory_format=torch.channels_last)
    kernels.join_maps(
        ctypes.c_int64(count),
        ctypes.c_int64(images * height * width),
        (ctypes.c_int64 * count)(*channels),
        (ctypes.c_void_p * count)(*(x.data_ptr() for x in maps)),
        ctypes.c_void_p(joined.data_ptr()),
        ctypes.c_int64(torch.get_num_threads()),
    )
    return joined


def silu_(x: Tensor) -> Tensor:
    """Apply SiLU in place to a dense float32 tensor on the CPU; faster than oneDNN's and PyTorch's."""
    if (kernels := library()) is None:
        return F.silu(x, inplace=True)
    kernels.silu(
        ctypes.c_void_p(x.data_ptr()), ctypes.c_int64(x.numel()), ctypes.c_int64(torch.get_num_threads())
    )
    return x


def can_decode(logits: Sequence[Tensor]) -> bool:
    """Return whether `decode` can run: on the CPU, float32, channels last, no gradients, no tracing."""
    return not torch.is_grad_enabled() and _fit(logits)


def decode(logits: Sequence[Tensor], strides: Sequence[float], sizes: Tensor, linear: int = 0) -> Tensor:
    """Decode logits into boxes in pixels and scores.

    Args:
        logits: levels x (B, A (5 + nc + linear), h, w), for which `can_decode` is true.
        strides: pixels per cell of each level.
        sizes: (levels, A, 2) anchors in pixels.
        linear: numbers at the end of each row that stay as they are.

    Returns:
        (B, N, 5 + nc + linear) float32, by level, anchor, row and column.
    """
    kernels = library()
    assert kernels is not None
    anchors = sizes.shape[1]
    images, numbers = len(logits[0]), logits[0].shape[1] // anchors
    counts = [anchors * x.shape[2] * x.shape[3] for x in logits]
    boxes = torch.empty(images, sum(counts), numbers)
    sizes = sizes.float().contiguous()
    for index, (x, stride) in enumerate(zip(logits, strides, strict=True)):
        level = _Level(
            images,
            x.shape[2],
            x.shape[3],
            anchors,
            numbers,
            linear,
            sum(counts[:index]),
            sum(counts),
            torch.get_num_threads(),
            stride,
            sizes[index].data_ptr(),
        )
        kernels.decode_level(
            ctypes.byref(level), ctypes.c_void_p(x.data_ptr()), ctypes.c_void_p(boxes.data_ptr())
        )
    return boxes


def _fit(maps: Sequence[Tensor]) -> bool:
    return (
        not is_traced()
        and all(
            x.device.type == "cpu"
            and type(x) is Tensor
            and x.dtype == torch.float32
            and x.dim() == 4
            and x.numel() > 0
            and x.is_contiguous(memory_format=torch.channels_last)
            for x in maps
        )
        and library() is not None
    )
