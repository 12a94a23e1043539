"""The optimizer, its three groups of parameters, and the steps that it makes."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn, optim

from utils.train.hyp import Hyp

NOMINAL_BATCH = 64  # hyperparameters were tuned for it; smaller batches are accumulated up to it
_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


def accumulation(batch_size: int) -> int:
    """Batches that make up one update after the warm-up."""
    return max(round(NOMINAL_BATCH / batch_size), 1)


def scaled_decay(weight_decay: float, batch_size: int) -> float:
    """Weight decay in proportion to the pictures of one update."""
    return weight_decay * batch_size * accumulation(batch_size) / NOMINAL_BATCH


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into biases, weights (the only ones that decay) and weights of norm layers."""
    biases: list[nn.Parameter] = []
    weights: list[nn.Parameter] = []
    norms: list[nn.Parameter] = []
    for layer, name, parameter in _own_parameters(model):
        if name == "bias":
            biases.append(parameter)
        elif name == "weight" and isinstance(layer, _NORMS):
            norms.append(parameter)
        else:
            weights.append(parameter)
    return biases, weights, norms


def _own_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    seen: set[int] = set()  # a layer shared by two others comes twice
    for layer in model.modules():
        for name, parameter in layer.named_parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                yield layer, name, parameter


def make_optimizer(model: nn.Module, name: str, hyp: Hyp, batch_size: int) -> optim.Optimizer:
    """Make SGD (with Nesterov momentum), Adam or AdamW over the three groups, in their order.

    Each group holds `initial_lr`, from which the schedule computes `lr`.
    """
    biases, weights, norms = parameter_groups(model)
    decay = scaled_decay(hyp["weight_decay"], batch_size)
    groups = [
        {"params": biases, "weight_decay": 0.0},
        {"params": weights, "weight_decay": decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    lr, momentum = hyp["lr0"], hyp["momentum"]
    # Fused kernels update all tensors of a group in one call; CPU and CUDA have them.
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    made: optim.Optimizer
    if name == "SGD":
        made = optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
    elif name == "Adam":
        made = optim.Adam(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
    else:
        made = optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
    for group in made.param_groups:
        group["initial_lr"] = lr
    return made


def describe_optimizer(optimizer: optim.Optimizer) -> str:
    """The line that users know: kind, learning rate, and the sizes of the groups."""
    biases, weights, norms = optimizer.param_groups
    return (
        f"{type(optimizer).__name__}(lr={weights['initial_lr']:g}) with parameter groups "
        f"{len(norms['params'])} weight(decay=0.0), "
        f"{len(weights['params'])} weight(decay={weights['weight_decay']:g}), "
        f"{len(biases['params'])} bias"
    )


def restore_optimizer(optimizer: optim.Optimizer, state: dict) -> None:
    """Load a saved state, each tensor in the memory order of its parameter.

    Fused kernels walk parameter, gradient and momentum side by side through memory: a buffer in
    another order (channels last or not) would be paired with the wrong weights.
    """
    optimizer.load_state_dict(state)
    for parameter, buffers in optimizer.state.items():
        for key, value in buffers.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                buffers[key] = torch.empty_like(parameter).copy_(value)
