"""Triton kernels of one depth-wise 1-D convolution, along the rows or the columns of dense maps.

Importing this module imports triton. docs/design/0020-triton-kernels.md explains the tiles.

A program computes BLOCK_P pixels x BLOCK_C channels of one image; the grid is (pixel blocks, channel blocks,
images). Sums are in float32 whatever the maps are. The number of taps is odd, and positions outside the map
count as zero, so that height and width stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Pixels and channels of a program, by whether maps are channels last: neighbours in memory come first. A
# column stage of a contiguous map finds the rows above and below in its own tile if that has many pixels.
_TILES = {True: (128, 32), False: (1024, 4)}
# Triton would compile a version for multiples of 16 of each; images of many sizes shall use one kernel.
_ANY = ("height", "width", "dilation", "numbers")
_WARPS = 8  # 16 values per thread; with 32 the backward kernel would need 160 registers


@triton.jit
def _tile(
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    ROWS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> tuple[tl.tensor, ...]:
    """Return the program's channels [C], offsets [P, C], positions on the axis [P] and mask [P, C].

    Pixels are numbered along the axis of the convolution, so that the taps of a tile overlap in the cache. A
    column stage of a contiguous map numbers them along the rows all the same, for coalesced loads.
    """
    number = tl.program_id(0) * BLOCK_P + tl.arange(0, BLOCK_P)
    channel = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    pixel = number
    if ROWS:
        position = number % width
    elif LAST:
        position = number % height
        pixel = position * width + number // height
    else:
        position = number // width
    inside = (number < height * width)[:, None] & (channel < channels)[None, :]
    if LAST:
        offset = pixel[:, None] * channels + channel[None, :]
    else:
        offset = channel[None, :] * (height * width) + pixel[:, None]
    return channel, offset, position, inside


@triton.jit
def _axis(
    channels: tl.tensor, height: tl.tensor, width: tl.tensor, ROWS: tl.constexpr, LAST: tl.constexpr
) -> tuple[tl.tensor, ...]:
    """Return the length of the axis of the convolution, and the distance of its neighbours in memory."""
    extent = height
    step = width
    if ROWS:
        extent = width
        step = 1
    if LAST:
        step = step * channels
    return extent, step


@triton.jit(do_not_specialize=_ANY)
def _forward(
    x: tl.tensor,
    y: tl.tensor,
    weight: tl.tensor,
    bias: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    dilation: tl.tensor,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Compute y, the convolution of x."""
    channel, offset, position, inside = _tile(channels, height, width, ROWS, LAST, BLOCK_P, BLOCK_C)
    extent, step = _axis(channels, height, width, ROWS, LAST)
    image = tl.program_id(2).to(tl.int64) * channels * height * width  # a batch may exceed 2^31 values
    real = channel < channels
    sums = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    sums += tl.load(bias + channel, mask=real, other=0.0).to(tl.float32)[None, :]
    for tap in range(TAPS):
        shift = (tap - TAPS // 2) * dilation
        on_map = (position + shift >= 0) & (position + shift < extent)
        values = tl.load(x + image + offset + shift * step, mask=inside & on_map[:, None], other=0.0)
        factors = tl.load(weight + channel * TAPS + tap, mask=real, other=0.0)
        sums += values.to(tl.float32) * factors.to(tl.float32)[None, :]
    tl.store(y + image + offset, sums.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=_ANY)
def _backward(
    x: tl.tensor,
    grad_y: tl.tensor,
    grad_x: tl.tensor,
    weight: tl.tensor,
    parts: tl.tensor,
    numbers: tl.tensor,
    channels: tl.tensor,
    height: tl.tensor,
    width: tl.tensor,
    dilation: tl.tensor,
    TAPS: tl.constexpr,
    ROWS: tl.constexpr,
    LAST: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_C: tl.constexpr,
) -> None:
    """Compute grad_x, and the part of this tile of the gradients of weight and bias.

    y[p + shift] uses x[p] with one weight. Its gradient, loaded once for each tap, therefore gives both the
    contribution to grad_x[p], times that weight, and to the gradient of that weight, times x[p].

    `parts` is a row of `numbers` values per pixel block and image: weight (C, taps), then bias (C).
    """
    channel, offset, position, inside = _tile(channels, height, width, ROWS, LAST, BLOCK_P, BLOCK_C)
    extent, step = _axis(channels, height, width, ROWS, LAST)
    image = tl.program_id(2).to(tl.int64) * channels * height * width
    row = (tl.program_id(2) * tl.num_programs(0) + tl.program_id(0)).to(tl.int64) * numbers
    real = channel < channels
    values = tl.load(x + image + offset, mask=inside, other=0.0).to(tl.float32)
    sums = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for tap in range(TAPS):
        shift = (TAPS // 2 - tap) * dilation
        on_map = (position + shift >= 0) & (position + shift < extent)
        slopes = tl.load(grad_y + image + offset + shift * step, mask=inside & on_map[:, None], other=0.0)
        factors = tl.load(weight + channel * TAPS + tap, mask=real, other=0.0)
        sums += slopes.to(tl.float32) * factors.to(tl.float32)[None, :]
        of_weight = tl.sum(slopes.to(tl.float32) * values, axis=0)
        tl.store(parts + row + channel * TAPS + tap, of_weight, mask=real)
    tl.store(grad_x + image + offset, sums.to(grad_x.dtype.element_ty), mask=inside)
    slopes = tl.load(grad_y + image + offset, mask=inside, other=0.0)
    of_bias = tl.sum(slopes.to(tl.float32), axis=0)
    tl.store(parts + row + channels * TAPS + channel, of_bias, mask=real)


def forward(x: Tensor, values: Sequence[Tensor], dilations: Sequence[int], keep: bool = True) -> list[Tensor]:
    """Return the map after each stage, in the memory format of x.

    Args:
        x: (B, C, H, W) without gaps in memory.
        values: weight and bias of each stage.
        dilations: of each stage.
        keep: False: return the last map only.
    """
    maps: list[Tensor] = []
    grid, constants = _launch(x)
    for stage, dilation in enumerate(dilations):
        weight, bias = values[2 * stage : 2 * stage + 2]
        y = torch.empty_like(x)
        _forward[grid](x, y, weight, bias, *x.shape[1:], dilation, **_taps(weight, stage), **constants)
        maps = [*maps, y] if keep else [y]
        x = y
    return maps


def backward(
    maps: Sequence[Tensor], grad_y: Tensor, values: Sequence[Tensor], dilations: Sequence[int]
) -> list[Tensor]:
    """Return the gradients of the first map and of `values`.

    Each program writes its own part of the gradients of weights and biases, and the parts are then summed:
    without atomics the result is the same in every run.

    Args:
        maps: the input of each stage, all in one memory format.
        grad_y: gradient of the output, in the same memory format.
        values: weight and bias of each stage.
        dilations: of each stage.
    """
    sizes = [value.numel() for value in values]
    grid, constants = _launch(grad_y)
    parts = grad_y.new_empty((grid[0] * grid[2], sum(sizes)), dtype=torch.float32)
    for stage in reversed(range(len(dilations))):
        x, weight = maps[stage], values[2 * stage]
        grad_x = torch.empty_like(x)
        own = parts[:, sum(sizes[: 2 * stage]) :]
        shape = (parts.shape[1], *x.shape[1:], dilations[stage])
        _backward[grid](x, grad_y, grad_x, weight, own, *shape, **_taps(weight, stage), **constants)
        grad_y = grad_x
    grads = parts.sum(0).split(sizes)
    return [
        grad_y,
        *(grad.view_as(value).to(value.dtype) for grad, value in zip(grads, values, strict=True)),
    ]


def _launch(x: Tensor) -> tuple[tuple[int, int, int], dict[str, Any]]:
    """Return the grid of a map, and the constants and options of its programs."""
    images, channels, height, width = x.shape
    last = not x.is_contiguous()
    pixels, block = _TILES[last]
    grid = (triton.cdiv(height * width, pixels), triton.cdiv(channels, block), images)
    return grid, {"LAST": last, "BLOCK_P": pixels, "BLOCK_C": block, "num_warps": _WARPS}


def _taps(weight: Tensor, stage: int) -> dict[str, Any]:
    """Return the constants of a stage: those with even numbers are along the rows."""
    return {"TAPS": weight.shape[2] * weight.shape[3], "ROWS": stage % 2 == 0}
