"""Count the multiply-adds of a forward pass without computing it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

_COUNTED = (
    *(nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MultiheadAttention),
    *(nn.BatchNorm2d, nn.LayerNorm),
)


def on_meta(module: nn.Module, *inputs: Any) -> Any:
    """Run a module on the meta device: no weight is copied, nothing is computed, no state changes."""
    state = {
        name: tensor.to("meta") for name, tensor in [*module.named_parameters(), *module.named_buffers()]
    }
    with torch.no_grad():
        return torch.func.functional_call(module, state, inputs, strict=False)


def macs(leaf: nn.Module, received: Tensor, made: Any) -> float:
    """Return the multiply-adds of a leaf module, counted as YOLOv5 counts.

    A convolution costs its outputs times (inputs per group) k^2, a linear layer inputs times
    outputs, an affine norm four per value, self-attention its projections and products; all other
    modules cost nothing.
    """
    if isinstance(leaf, nn.MultiheadAttention):  # its projections are functional calls, without hooks
        length, batch, width = received.shape
        return batch * (4 * length * width**2 + 2 * length**2 * width)
    if isinstance(leaf, nn.Conv2d):
        return made.numel() * leaf.weight[0].numel()
    if isinstance(leaf, nn.ConvTranspose2d):
        return received.numel() * leaf.weight[0].numel()
    if isinstance(leaf, nn.Linear):
        return made.numel() * leaf.in_features
    return 4.0 * received.numel()


def macs_with_biases(leaf: nn.Module, received: Tensor, made: Any) -> float:
    """Return `macs` plus an addition for each bias, with two per value for a norm.

    This gives the numbers of the VAN paper (arXiv:2202.09741: 0.88, 2.52 and 5.03 G).
    """
    if isinstance(leaf, nn.BatchNorm2d | nn.LayerNorm):
        return 2.0 * received.numel()
    biased = getattr(leaf, "bias", None) is not None
    return macs(leaf, received, made) + (made.numel() if biased else 0)


def macs_by_module(
    module: nn.Module, *inputs: Any, cost: Callable[[nn.Module, Tensor, Any], float] = macs
) -> dict[nn.Module, float]:
    """Return the `cost` of every leaf module that has one, for inputs on the meta device."""
    counted: dict[nn.Module, float] = {}

    def count(leaf: nn.Module, received: tuple[Tensor, ...], made: Any) -> None:
        counted[leaf] = counted.get(leaf, 0.0) + cost(leaf, received[0], made)

    hooks = [leaf.register_forward_hook(count) for leaf in module.modules() if isinstance(leaf, _COUNTED)]
    try:
        on_meta(module, *inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def gflops(module: nn.Module, *inputs: Any) -> float:
    """Return GFLOPs as YOLOv5 prints them: two operations for each multiply-add, in units of 1e9."""
    return 2 * sum(macs_by_module(module, *inputs).values()) / 1e9
