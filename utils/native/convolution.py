"""A convolution and its activation as one call of oneDNN, with weights in the order that it likes best."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_NAMES = {nn.SiLU: "swish", nn.ReLU: "relu", nn.Identity: "none"}
_SIDE = 64  # of a picture for which weights are laid out; another one works as well


class PackedConvolution:
    """act(convolution(x)) for inference on the CPU; a view of the convolution's weights, not a module.

    PyTorch's compiler uses the same operators. They are not part of its public interface, so whoever
    calls this must be able to do without.
    """

    def __init__(self, convolution: nn.Conv2d, activation: str) -> None:
        self.convolution = convolution
        self.activation = activation
        self._laid_out: tuple[tuple[int, int], Tensor] | None = None

    @classmethod
    def of(cls, convolution: nn.Conv2d, act: nn.Module) -> PackedConvolution | None:
        """None where oneDNN, the operator or the activation is missing."""
        name = _NAMES.get(type(act))
        known = hasattr(torch.ops.mkldnn, "_convolution_pointwise") and torch.backends.mkldnn.is_available()
        plain = convolution.padding_mode == "zeros" and not isinstance(convolution.padding, str)
        return cls(convolution, name) if name and known and plain else None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_laid_out": None}  # the laid out weights can't be copied

    def fits(self, x: Tensor) -> bool:
        """Whether x is what the operator takes: float32 in CPU memory, without gradients or tracing."""
        return not (torch.compiler.is_compiling() or torch.jit.is_tracing()) and (
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
        bias = own.bias
        weight = self._weight(settings)
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *settings, self.activation, [], "")

    def _weight(self, settings: list[Any]) -> Tensor:
        """The weights as they are now, laid out anew only when they have changed."""
        weight = self.convolution.weight
        state = weight.data_ptr(), 0 if weight.is_inference() else weight._version
        if self._laid_out is None or self._laid_out[0] != state:
            size = [1, self.convolution.in_channels, _SIDE, _SIDE]
            laid_out = torch.ops.mkldnn._reorder_convolution_weight(weight.detach(), *settings, size)
            self._laid_out = state, laid_out
        return self._laid_out[1]
