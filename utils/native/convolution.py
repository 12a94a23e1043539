"""A convolution with its activation for inference, with weights in oneDNN's layout."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from utils.native.library import is_traced, is_watched
from utils.native.maps import silu_

_NAMES = {
    nn.SiLU: "none",
    nn.ReLU: "relu",
    nn.Identity: "none",
}  # SiLU follows: oneDNN's is slow
_KNOWN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


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
            _KNOWN
            and not torch.is_grad_enabled()
            and x.device.type == "cpu"
            and type(x) is Tensor
            and x.dim() == 4
            and x.dtype == weight.dtype == torch.float32
            and not weight.is_inference()
            and type(act) in _NAMES
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
        y: Tensor = convolve(x, weight, own.bias, *settings, _NAMES[type(act)], [], "")
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
