"""The chain of depth-wise 1-D convolutions on CUDA, by Triton; off unless $YOLOV5_TRITON is 1.

The kernels are in utils/native/chain_kernels.py; docs/design/0020-triton-kernels.md explains the choices.
Before a chain with new lengths, dilations, memory format or precision runs for the first time, a small one
is compared with PyTorch. If it differs or a kernel fails, PyTorch's convolutions run, after one warning.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from utils.base.log import LOG
from utils.base.seeds import generator
from utils.native.layout import dense, memory_format
from utils.native.library import is_traced, is_watched

DEVICES = ("cuda",)
# Largest difference from PyTorch that the self-check accepts, as a fraction of the largest value.
TOLERANCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}
_CHECKED_SHAPE = (2, 48, 31, 34)  # several blocks of pixels and channels, of which the last are not full

_checked: set[tuple[Any, ...]] = set()
_is_broken = threading.Event()
_one_at_a_time = threading.Lock()
_one_warning = threading.Lock()  # a second lock: on CUDA a backward pass is in another thread


def is_triton(x: Tensor, stages: Sequence[nn.Conv2d]) -> bool:
    """Return whether the chain can and should run by Triton: enabled, on CUDA, no tracing, no hooks.

    The first call for a kind of chain compiles its kernels and compares them with PyTorch.

    Args:
        x: (B, C, H, W).
        stages: as those of `separable_chain`.
    """
    if x.device.type not in DEVICES or is_traced() or not is_enabled() or is_watched(*stages):
        return False
    if x.dim() != 4 or type(x) not in (Tensor, nn.Parameter) or len(stages) not in (2, 4):
        return False
    if x.numel() == 0 or len(x) > 65535 or x[0].numel() >= 2**31:  # limits of a grid and of an offset
        return False
    dtype = _precision(x)
    if dtype not in TOLERANCES or any(not _is_plain(stage, x, dtype) for stage in stages):
        return False
    return _is_correct(x, stages, dtype)


def is_enabled() -> bool:
    """Return whether $YOLOV5_TRITON is 1, $YOLOV5_NATIVE is not 0, and no kernel has failed."""
    asked = os.environ.get("YOLOV5_TRITON") == "1" and os.environ.get("YOLOV5_NATIVE") != "0"
    return asked and not _is_broken.is_set()


def triton_chain(x: Tensor, stages: Sequence[nn.Conv2d]) -> Tensor:
    """Apply the chain to x, (B, C, H, W) -> (B, C, H, W), for which `is_triton` is true."""
    x = x.to(_precision(x))
    values = [value for stage in stages for value in (stage.weight, stage.bias) if value is not None]
    if torch.is_grad_enabled():
        return _apply(x, _dilations(stages), values)
    return _forward(dense(x), _dilations(stages), values, keep=False)[-1]


class _Chain(torch.autograd.Function):
    """The kernels for autograd; the input of each stage is saved, as PyTorch's convolutions do."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dilations: tuple[int, ...], *values: Tensor) -> Tensor:
        x = dense(x)
        maps = [x, *_forward(x, dilations, values)]
        ctx.save_for_backward(*maps[:-1], *values)
        ctx.dilations = dilations
        return maps[-1]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        stages = len(ctx.dilations)
        maps, values = ctx.saved_tensors[:stages], ctx.saved_tensors[stages:]
        grad_x, *grads = _backward(maps, grad_y, ctx.dilations, values)
        return grad_x, None, *grads


def _apply(x: Tensor, dilations: Sequence[int], values: Sequence[Tensor]) -> Tensor:
    y: Tensor = _Chain.apply(x, dilations, *values)
    return y


def _forward(
    x: Tensor, dilations: Sequence[int], values: Sequence[Tensor], keep: bool = True
) -> list[Tensor]:
    """Return the map after each stage, or the last only; by PyTorch's convolutions if a kernel fails."""
    if not _is_broken.is_set():
        try:
            from utils.native import chain_kernels  # imports triton

            with torch.cuda.device_of(x):  # Triton launches on the current device
                return chain_kernels.forward(x, _contiguous(values), dilations, keep)
        except Exception as error:  # any: of the compiler, the assembler, the driver
            _give_up(error)
    return _plain_maps(x, dilations, values)


def _backward(
    maps: Sequence[Tensor], grad_y: Tensor, dilations: Sequence[int], values: Sequence[Tensor]
) -> list[Tensor]:
    """Return the gradients of the first map and of `values`; by PyTorch's convolutions if a kernel fails."""
    if not _is_broken.is_set():
        try:
            from utils.native import chain_kernels

            grad_y = grad_y.contiguous(memory_format=memory_format(maps[0]))
            with torch.cuda.device_of(grad_y):
                return chain_kernels.backward(maps, grad_y, _contiguous(values), dilations)
        except Exception as error:
            _give_up(error)
    return _by_autograd(_plain, maps[0], grad_y, dilations, values)[1:]


def _plain(x: Tensor, dilations: Sequence[int], values: Sequence[Tensor]) -> Tensor:
    return _plain_maps(x, dilations, values)[-1]


def _plain_maps(x: Tensor, dilations: Sequence[int], values: Sequence[Tensor]) -> list[Tensor]:
    """Return the map after each of PyTorch's convolutions, in the precision of x."""
    maps = []
    for stage, dilation in enumerate(dilations):
        weight, bias = (value.to(x.dtype) for value in values[2 * stage : 2 * stage + 2])
        padding = (weight.shape[2] // 2 * dilation, weight.shape[3] // 2 * dilation)
        x = F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=x.shape[1])
        maps.append(x)
    return maps


def _by_autograd(
    run: Callable[[Tensor, Sequence[int], Sequence[Tensor]], Tensor],
    x: Tensor,
    grad_y: Tensor,
    dilations: Sequence[int],
    values: Sequence[Tensor],
) -> list[Tensor]:
    """Return the output of `run`, and the gradients of x and `values`."""
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        inputs = [value.detach().requires_grad_() for value in (x, *values)]
        y = run(inputs[0], dilations, inputs[1:])
        return [y.detach(), *torch.autograd.grad(y, inputs, grad_y)]


def _is_correct(x: Tensor, stages: Sequence[nn.Conv2d], dtype: torch.dtype) -> bool:
    """Return whether the kernels that x and the stages need give PyTorch's results; compute it only once."""
    kernels = tuple((*stage.kernel_size, max(stage.dilation)) for stage in stages)
    key = (x.device, memory_format(x), dtype, stages[0].weight.dtype, kernels)
    if key in _checked:
        return True
    if x.is_cuda and torch.cuda.is_current_stream_capturing():  # a CUDA graph cannot contain the comparison
        return False
    with _one_at_a_time:
        if key not in _checked and not _is_broken.is_set():
            try:
                _compare(x.device, memory_format(x), dtype, stages)
                _checked.add(key)
            except Exception as error:
                _give_up(error)
    return not _is_broken.is_set()


def _compare(
    device: torch.device, layout: torch.memory_format, dtype: torch.dtype, stages: Sequence[nn.Conv2d]
) -> None:
    """Raise ArithmeticError unless output and gradients of a random chain are PyTorch's in float64."""
    random, channels = generator(0), _CHECKED_SHAPE[1]
    of_weights = stages[0].weight.dtype

    def draw(shape: Sequence[int], kind: torch.dtype) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape)).to(device, kind)

    with torch.inference_mode(False):
        x, grad_y = (draw(_CHECKED_SHAPE, dtype).contiguous(memory_format=layout) for _ in range(2))
        values = []
        for stage in stages:
            values += [draw((channels, 1, *stage.kernel_size), of_weights), draw((channels,), of_weights)]
        dilations = _dilations(stages)
        ours = _by_autograd(_apply, x, grad_y, dilations, values)
        exact = [value.double() for value in values]
        theirs = _by_autograd(_plain, x.double(), grad_y.double(), dilations, exact)
    names = ["output", "gradient of the input", *["gradient of weights and biases"] * len(values)]
    for name, mine, yours in zip(names, ours, theirs, strict=True):
        difference = float((mine.double() - yours).abs().max() / yours.abs().max())
        if not difference <= TOLERANCES[dtype]:  # also if it is not a number
            raise ArithmeticError(f"the {name} differs from PyTorch's by {difference:.1e} of its size")


def _give_up(error: Exception) -> None:
    """Log why the kernels are off, once.

    Raises:
        OutOfMemoryError: `error` is one, which is not a failure of the kernels.
    """
    if isinstance(error, torch.cuda.OutOfMemoryError):
        raise error
    with _one_warning:
        if not _is_broken.is_set():
            _is_broken.set()
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            LOG.warning(f"YOLOV5_TRITON: the kernels are off, and PyTorch's convolutions run: {reason}")


def _precision(x: Tensor) -> torch.dtype:
    """Return the precision in which PyTorch would convolve x."""
    kind = x.device.type
    is_cast = x.dtype in TOLERANCES and torch.is_autocast_enabled(kind)
    return torch.get_autocast_dtype(kind) if is_cast else x.dtype


def _is_plain(stage: nn.Module, x: Tensor, dtype: torch.dtype) -> bool:
    return (
        type(stage) is nn.Conv2d
        and stage.bias is not None
        and stage.in_channels == x.shape[1]
        and stage.weight.device == x.device
        and (stage.weight.dtype == dtype or torch.is_autocast_enabled(x.device.type))
        and stage.weight.dtype in TOLERANCES
    )


def _dilations(stages: Sequence[nn.Conv2d]) -> tuple[int, ...]:
    return tuple(max(stage.dilation) for stage in stages)  # a module has it as (vertical, horizontal)


def _contiguous(values: Sequence[Tensor]) -> list[Tensor]:
    return [value.contiguous() for value in values]
