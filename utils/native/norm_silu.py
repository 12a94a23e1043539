"""Native operations of `Conv`: 1x1 convolution, and batch norm with SiLU; norm_silu.c explains why."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from utils.native.library import is_traced, is_watched, library
from utils.native.maps import silu_

LANES = 16  # channels that norm_silu.c processes at a time, at most: with AVX-512
_ONEDNN_NAMES = {
    nn.SiLU: "none",
    nn.ReLU: "relu",
    nn.Identity: "none",
}  # SiLU follows: oneDNN's is slow
_HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


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


class PackedConvolution:
    """act(convolution(x)) on the CPU, with a copy of the weights in oneDNN's layout; not a module.

    PyTorch's compiler uses the same operators. They are not part of PyTorch's public interface, so callers
    need a fallback (`fits`). The copy is renewed when the weights have another memory address or version;
    `weight.data.mul_()` changes neither, so call `forget` after it.
    """

    def __init__(self) -> None:
        self._laid_out: tuple[tuple[int, int], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_laid_out": None}  # tensors in oneDNN's layout cannot be copied

    def forget(self) -> None:
        """Discard the copy of the weights."""
        self._laid_out = None

    def fits(self, x: Tensor, convolution: nn.Conv2d, act: nn.Module) -> bool:
        """Return whether oneDNN can run it: float32 on the CPU, without gradients, tracing or hooks."""
        weight = convolution.weight
        return (
            _HAS_ONEDNN
            and not torch.is_grad_enabled()
            and x.device.type == "cpu"
            and type(x) is Tensor
            and x.dim() == 4
            and x.dtype == weight.dtype == torch.float32
            and not weight.is_inference()
            and type(act) in _ONEDNN_NAMES
            and convolution.padding_mode == "zeros"
            and not isinstance(convolution.padding, str)
            and not torch.is_autocast_enabled("cpu")
            and not is_watched(convolution, act)
            and not is_traced()
        )

    def __call__(self, x: Tensor, convolution: nn.Conv2d, act: nn.Module) -> Tensor:
        """Return act(convolution(x)), (B, C1, H, W) -> (B, C2, H', W')."""
        own = convolution
        settings: list[Any] = [list(own.padding), list(own.stride), list(own.dilation), own.groups]
        weight = self._weight(own.weight, settings, x.shape)
        convolve = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = convolve(x, weight, own.bias, *settings, _ONEDNN_NAMES[type(act)], [], "")
        return silu_(y) if type(act) is nn.SiLU else y

    def _weight(self, weight: Tensor, settings: list[Any], shape: torch.Size) -> Tensor:
        """Return the current weights in oneDNN's layout, which is renewed only when they have changed.

        The layout is optimal for the shape of the first input and valid for all others.
        """
        state = weight.data_ptr(), weight._version
        if self._laid_out is None or self._laid_out[0] != state:
            laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *settings, list(shape))
            self._laid_out = state, laid_out
        return self._laid_out[1]
