"""A convolution and its activation for inference, with weights in the order that oneDNN likes best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from utils.native.library import is_traced, is_watched
from utils.native.maps import silu_

_NAMES = {nn.SiLU: "none", nn.ReLU: "relu", nn.Identity: "none"}  # SiLU comes after: oneDNN's is slow
_KNOWN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")


class PackedConvolution:
    """act(convolution(x)) on the CPU, and a copy of the weights in oneDNN's order; not a module.

    PyTorch's compiler uses the same operators. They are not part of its public interface, so whoever
    calls this must be able to do without. The copy is made again when the weights have moved, or changed in a
    way that PyTorch counts; `weight.data.mul_()` after the first call is not noticed: call `forget`.
    """

    def __init__(self) -> None:
        self._laid_out: tuple[tuple[int, int], Tensor] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"_laid_out": None}  # what is laid out can't be copied

    def forget(self) -> None:
        """Drop the copy of the weights."""
        self._laid_out = None

    def fits(self, x: Tensor, convolution: nn.Conv2d, act: nn.Module) -> bool:
        """Whether oneDNN can do it: float32 in CPU memory, without gradients, tracing or hooks."""
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
        """(B, C1, H, W) -> (B, C2, H', W')."""
        own = convolution
        settings: list[Any] = [list(own.padding), list(own.stride), list(own.dilation), own.groups]
        weight = self._weight(own.weight, settings, x.shape)
        convolve = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = convolve(x, weight, own.bias, *settings, _NAMES[type(act)], [], "")
        return silu_(y) if type(act) is nn.SiLU else y

    def _weight(self, weight: Tensor, settings: list[Any], shape: torch.Size) -> Tensor:
        """The weights as they are now, laid out again only when they have changed.

        The order is the best one for maps of the first shape that came; others can be computed with it, too.
        """
        state = weight.data_ptr(), weight._version
        if self._laid_out is None or self._laid_out[0] != state:
            laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *settings, list(shape))
            self._laid_out = state, laid_out
        return self._laid_out[1]
