"""The optimizer, its three groups of parameters, and the steps that it makes."""

from __future__ import annotations

from collections.abc import Collection, Iterator

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


def make_optimizer(
    model: nn.Module,
    name: str,
    hyp: Hyp,
    batch_size: int,
    new: Collection[str] = (),
    new_gain: float = 1.0,
) -> optim.Optimizer:
    """Make SGD (with Nesterov momentum), Adam or AdamW over the three groups, in their order.

    Each group holds `initial_lr`, from which the schedule computes `lr`.

    Args:
        model: whose parameters are to be trained.
        name: SGD, Adam or AdamW.
        hyp: hyperparameters.
        batch_size: of one forward pass.
        new: names of parameters that start from nothing in a model that is pretrained otherwise.
        new_gain: factor on their learning rate; unless it is 1 they get three groups of their own.
    """
    kinds = parameter_groups(model)
    decays = (0.0, scaled_decay(hyp["weight_decay"], batch_size), 0.0)
    lr, momentum = hyp["lr0"], hyp["momentum"]
    chosen = {id(p) for key, p in model.named_parameters() if key in new} if new_gain != 1 else set()
    parts = [(False, lr)] + ([(True, lr * new_gain)] if chosen else [])
    groups = [
        {"params": [p for p in kind if (id(p) in chosen) == new], "weight_decay": decay, "lr": rate}
        for new, rate in parts
        for kind, decay in zip(kinds, decays, strict=True)
    ]
    # Fused kernels update all tensors of a group in one call; CPU and CUDA have them.
    fused = next(model.parameters()).device.type in ("cpu", "cuda")
    made: optim.Optimizer
    if name == "SGD":
        made = optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
        _start_momentum(made)
    elif name == "Adam":
        made = optim.Adam(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
    else:
        made = optim.AdamW(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
    for group in made.param_groups:
        group["initial_lr"] = group["lr"]
    return made


def _start_momentum(optimizer: optim.SGD) -> None:
    """Give every parameter its momentum, zero, now: the same steps as without.

    Fused SGD fails on parameters that join later, such as those that `--graft-freeze` releases.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group["momentum"] and parameter.requires_grad:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def describe_optimizer(optimizer: optim.Optimizer) -> str:
    """The line that users know: kind, learning rate, and the sizes of the groups."""
    biases, weights, norms, *apart = optimizer.param_groups
    more = f", {sum(len(g['params']) for g in apart)} new with lr={apart[0]['initial_lr']:g}" if apart else ""
    return (
        f"{type(optimizer).__name__}(lr={weights['initial_lr']:g}) with parameter groups "
        f"{len(norms['params'])} weight(decay=0.0), "
        f"{len(weights['params'])} weight(decay={weights['weight_decay']:g}), "
        f"{len(biases['params'])} bias{more}"
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
