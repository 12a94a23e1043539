"""The optimizer with its three parameter groups, the learning rate schedule, and the EMA of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from utils.train.hyp import Hyp

M = TypeVar("M", bound=nn.Module)


class ModelEMA(Generic[M]):
    """Average every floating entry of a model's state (batch norm statistics included) over updates.

    The decay rises from 0 to `decay` over about `tau` updates, so the first ones count.
    Make it when the model is final: anchors, classes and memory format are copied once.
    """

    def __init__(self, model: M, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates
        self._own = _floating(self.model)

    def decay_at(self, updates: int) -> float:
        """The weight of the old average in the given update, counted from 1."""
        return self.decay * (1 - math.exp(-updates / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average a step towards `model`'s present weights."""
        self.updates += 1
        # One pass over all tensors; a Python loop over some 350 costs more than the arithmetic.
        torch._foreach_lerp_(self._own, _floating(model), 1 - self.decay_at(self.updates))

    def state_dict(self) -> dict[str, Tensor]:
        """The averaged weights, by the model's keys."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        """Go on from saved weights and the number of updates behind them."""
        self.model.load_state_dict(state)
        self.updates = updates


def _floating(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.dtype.is_floating_point]


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
    """Weight decay in proportion to the images of one update."""
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


SHORTEST_WARMUP = 100  # batches, unless half of the run is shorter still


def linear(epoch: float, epochs: int, lrf: float) -> float:
    """Factor on the learning rate, falling from 1 to `lrf` in a straight line."""
    return (1 - epoch / epochs) * (1 - lrf) + lrf


def cosine(epoch: float, epochs: int, lrf: float) -> float:
    """Factor on the learning rate, falling from 1 to `lrf` along half a cosine."""
    return 1 + (lrf - 1) * (1 - math.cos(math.pi * epoch / epochs)) / 2


@dataclass(frozen=True)
class Schedule:
    """The course of a run of `epochs` times `batches` batches."""

    hyp: Hyp
    epochs: int
    batches: int  # in an epoch
    batch_size: int
    cos_lr: bool = False

    @property
    def warmup(self) -> int:
        """Batches of the warm-up: at least 100, at most half of the run; none if warmup_epochs is 0.

        Without the upper bound a short run would never leave its warm-up.
        """
        if self.hyp["warmup_epochs"] == 0:
            return 0
        wanted = max(round(self.hyp["warmup_epochs"] * self.batches), SHORTEST_WARMUP)
        return min(wanted, self.epochs * self.batches // 2)

    def factor(self, epoch: int) -> float:
        """Factor on the learning rate in an epoch."""
        return (cosine if self.cos_lr else linear)(epoch, self.epochs, self.hyp["lrf"])

    def accumulate(self, step: int) -> int:
        """Batches that make up an update at this step: 1 at first, up to the nominal batch."""
        return max(1, round(self._ramp(step, 1, NOMINAL_BATCH / self.batch_size)))

    def set(self, optimizer: Optimizer, step: int) -> None:
        """Give the optimizer its rates and momentum for a step, counted in batches over the run.

        In the warm-up the biases come down from `warmup_bias_lr`, all others up from 0.
        """
        factor = self.factor(step // self.batches)
        for index, group in enumerate(optimizer.param_groups):
            start = self.hyp["warmup_bias_lr"] if index % 3 == 0 else 0.0  # three groups, perhaps twice
            group["lr"] = self._ramp(step, start, group["initial_lr"] * factor)
            if "momentum" in group:
                group["momentum"] = self._ramp(step, self.hyp["warmup_momentum"], self.hyp["momentum"])

    def _ramp(self, step: int, start: float, end: float) -> float:
        """From `start` at step 0 in a straight line to `end` at the end of the warm-up, and on."""
        if step >= self.warmup:
            return end
        return start + (end - start) * step / self.warmup
