"""Count the multiply-adds of a forward pass without computing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from utils.ops.meta import on_meta

_COUNTED = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MultiheadAttention),
    *(nn.BatchNorm2d, nn.LayerNorm),
)


def macs(layer: nn.Module, x: Tensor, output: Any) -> float:
    """Return the multiply-adds of a layer, counted as YOLOv5 counts.

    A convolution costs its outputs times (inputs per group) k^2, a linear layer inputs times
    outputs, an affine norm four per value, self-attention its projections and products; all other
    modules cost nothing.
    """
    if isinstance(layer, nn.MultiheadAttention):  # its projections are functional calls, without hooks
        length, batch, width = x.shape
        return batch * (4 * length * width**2 + 2 * length**2 * width)
    if isinstance(layer, nn.Conv2d):
        return output.numel() * layer.weight[0].numel()
    if isinstance(layer, nn.ConvTranspose2d):
        return x.numel() * layer.weight[0].numel()
    if isinstance(layer, nn.Linear):
        return output.numel() * layer.in_features
    return 4.0 * x.numel()


def macs_with_biases(layer: nn.Module, x: Tensor, output: Any) -> float:
    """Return `macs` plus an addition for each bias, with two per value for a norm.

    This gives the numbers of the VAN paper (arXiv:2202.09741: 0.88, 2.52 and 5.03 G).
    """
    if isinstance(layer, nn.BatchNorm2d | nn.LayerNorm):
        return 2.0 * x.numel()
    biased = getattr(layer, "bias", None) is not None
    return macs(layer, x, output) + (output.numel() if biased else 0)


def macs_by_module(
    module: nn.Module, *inputs: Any, cost: Callable[[nn.Module, Tensor, Any], float] = macs
) -> dict[nn.Module, float]:
    """Return the `cost` of every layer that has one, for inputs on the meta device."""
    counted: dict[nn.Module, float] = {}

    def count(layer: nn.Module, x: tuple[Tensor, ...], output: Any) -> None:
        counted[layer] = counted.get(layer, 0.0) + cost(layer, x[0], output)

    hooks = [layer.register_forward_hook(count) for layer in module.modules() if isinstance(layer, _COUNTED)]
    try:
        on_meta(module, *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def gflops(module: nn.Module, *inputs: Any) -> float:
    """Return GFLOPs as YOLOv5 prints them: two operations for each multiply-add, in units of 1e9."""
    return 2 * sum(macs_by_module(module, *inputs).values()) / 1e9
