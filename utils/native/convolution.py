"""A convolution and its activation as one call of oneDNN, with weights in the order that it likes best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from utils.native.maps import silu_
from utils.native.modes import is_traced

_NAMES = {nn.SiLU: "none", nn.ReLU: "relu", nn.Identity: "none"}  # SiLU comes after: oneDNN's is slow


class PackedConvolution:
    """act(convolution(x)) for inference on the CPU; a view of the convolution's weights, not a module.

    PyTorch's compiler uses the same operators. They are not part of its public interface, so whoever
    calls this must be able to do without.
    """

    def __init__(self, convolution: nn.Conv2d, act: nn.Module) -> None:
        self.convolution = convolution
        self.activation = _NAMES[type(act)]
        self.silu = type(act) is nn.SiLU
        self._laid_out: tuple[tuple[int, int], Tensor] | None = None

    @classmethod
    def of(cls, convolution: nn.Conv2d, act: nn.Module) -> PackedConvolution | None:
        """None where oneDNN, the operator or the activation is missing."""
        known = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and torch.backends.mkldnn.is_available()
        plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
        return cls(convolution, act) if type(act) in _NAMES and known and plain else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_laid_out": None}  # the laid out weights can't be copied

    def fits(self, x: Tensor) -> bool:
        """Whether x is what the operator takes: float32 in CPU memory, without gradients or tracing."""
        return not is_traced() and (
            x.device.type == "cpu"
            and type(x) is Tensor
            and x.dtype == self.convolution.weight.dtype == torch.float32
            and not torch.is_grad_enabled()
            and not torch.is_autocast_enabled("cpu")
            and not self.convolution._forward_hooks
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(B, C1, H, W) -> (B, C2, H', W')."""
        own = self.convolution
        settings: list[Any] = [list(own.padding), list(own.stride), list(own.dilation), own.groups]
        weight = self._weight(settings, x.shape)
        y = torch.ops.mkldnn._convolution_pointwise(x, weight, own.bias, *settings, self.activation, [], "")
        return silu_(y) if self.silu else y

    def _weight(self, settings: list[Any], shape: torch.Size) -> Tensor:
        """The weights as they are now, laid out anew only when they have changed.

        The order is the best one for maps of the first shape that came; others can be computed with it, too.
        """
        weight = self.convolution.weight
        state = weight.data_ptr(), 0 if weight.is_inference() else weight._version
        if self._laid_out is None or self._laid_out[0] != state:
            laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *settings, list(shape))
            self._laid_out = state, laid_out
        return self._laid_out[1]
