"""Run a module without computing anything: the sizes of its outputs, on PyTorch's meta device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

Size = tuple[int, ...]


def on_meta(module: nn.Module, *inputs: Any) -> Any:
    """Run a module on the meta device: no weight is copied, nothing is computed, no state changes."""
    state = {
        name: tensor.to("meta") for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    with torch.no_grad(), _Sizes():
        return torch.func.functional_call(module, state, inputs, strict=False)


class _Sizes(TorchFunctionMode):
    """Compute the sizes of what most layers consist of directly, on the meta device.

    PyTorch's own rules for these import its compiler, which takes a second in each process.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rule = _RULES.get(func)
        if rule is not None and args:
            first: Any = args[0][0] if func is torch.cat and args[0] else args[0]
            try:
                size = rule(*args, **(kwargs or {})) if first.is_meta else None
            except (AttributeError, TypeError, ValueError):
                size = None  # arguments that the rule does not know
            if size is not None and min(size) > 0:
                return first.new_empty(size)
        return func(*args, **(kwargs or {}))  # also where it is an error, which PyTorch describes


def _size_of_convolution(
    x: Tensor, weight: Tensor, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Size | None:  # fmt: skip
    out, inputs, *kernel = weight.shape
    fits = x.dim() == 4 and x.shape[1] == inputs * groups and x.dtype == weight.dtype
    if not fits or isinstance(padding, str):
        return None
    return (len(x), out, *_sides(x, kernel, stride, padding, dilation))


def _size_of_pool(
    x: Tensor, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> Size | None:  # fmt: skip
    if x.dim() != 4 or ceil_mode or return_indices or 2 * max(_pair(padding)) > min(_pair(kernel_size)):
        return None
    return (*x.shape[:2], *_sides(x, kernel_size, stride or kernel_size, padding, dilation))


def _size_of_norm(
    x: Tensor, mean: Any, var: Any, weight: Any = None, bias: Any = None, training: bool = False,
    momentum: Any = 0.1, eps: Any = 1e-5,
) -> Size | None:  # fmt: skip
    fits = x.dim() == 4 and (weight is None or len(weight) == x.shape[1]) and _is_positive(eps)
    fits = (
        fits
        and (momentum is None or isinstance(momentum, float))
        and (not training or x.numel() > x.shape[1])
    )
    return tuple(x.shape) if fits else None


def _size_of_gelu(x: Tensor, approximate: Any = "none") -> Size | None:
    return tuple(x.shape) if x.is_floating_point() and approximate in ("none", "tanh") else None


def _size_of_both(x: Tensor, y: Any = None, *, out: Any = None, **keywords: Any) -> Size | None:
    if out is not None or not (x.is_floating_point() and (not isinstance(y, Tensor) or y.dtype == x.dtype)):
        return None
    if not isinstance(y, Tensor) or y.shape == x.shape:
        return tuple(x.shape)
    sides = list(zip_longest(reversed(x.shape), reversed(y.shape), fillvalue=1))
    fits = all(one == other or 1 in (one, other) for one, other in sides)
    return tuple(max(pair) for pair in reversed(sides)) if fits else None


def _size_of_layer_norm(
    x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: Any = 1e-5
) -> Size | None:
    return tuple(x.shape) if x.shape[-1:] == tuple(shape) and _is_positive(eps) else None


def _size_of_concatenation(xs: Sequence[Tensor], dim: int = 0) -> Size | None:
    fits = dim == 1 and all(x.dim() == 4 and x.dtype == xs[0].dtype for x in xs)
    if not fits or len({(len(x), *x.shape[2:]) for x in xs}) > 1:
        return None
    return (len(xs[0]), sum(x.shape[1] for x in xs), *xs[0].shape[2:])


def _size_of_interpolation(
    x: Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest", *rest: Any, **keywords: Any
) -> Size | None:
    if x.dim() != 4 or size is not None or mode != "nearest" or scale_factor != 2:
        return None
    return (*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])


def _size_of_adaptive_pool(x: Tensor, output_size: Any) -> Size | None:
    return (*x.shape[:2], 1, 1) if x.dim() == 4 and _pair(output_size) == (1, 1) else None


def _size_of_linear(x: Tensor, weight: Tensor, bias: Any = None) -> Size | None:
    fits = x.shape[-1] == weight.shape[1] and x.dtype == weight.dtype
    return (*x.shape[:-1], len(weight)) if fits else None


def _sides(x: Tensor, kernel: Any, stride: Any, padding: Any, dilation: Any) -> list[int]:
    """Return height and width of the output of a window; 0 where it cannot be, which PyTorch describes."""
    values = [_pair(value) for value in (kernel, stride, padding, dilation)]
    if any(len(pair) != 2 or not all(type(one) is int for one in pair) for pair in values):
        return [0]
    steps = list(zip(x.shape[2:], *values, strict=True))
    if any(taps < 1 or step < 1 or pad < 0 or gap < 1 for _, taps, step, pad, gap in steps):
        return [0]
    return [(side + 2 * pad - gap * (taps - 1) - 1) // step + 1 for side, taps, step, pad, gap in steps]


def _is_positive(value: Any) -> bool:
    return isinstance(value, float | int) and value > 0


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int) else value


_RULES: dict[Any, Callable[..., Size | None]] = {
    functional.conv2d: _size_of_convolution,
    functional.max_pool2d: _size_of_pool,
    functional.batch_norm: _size_of_norm,
    functional.layer_norm: _size_of_layer_norm,
    functional.adaptive_avg_pool2d: _size_of_adaptive_pool,
    functional.interpolate: _size_of_interpolation,
    functional.linear: _size_of_linear,
    torch.cat: _size_of_concatenation,
    functional.gelu: _size_of_gelu,
    **dict.fromkeys((functional.silu, Tensor.add, Tensor.mul), _size_of_both),
}
