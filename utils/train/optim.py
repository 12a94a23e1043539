"""The optimizer with its three parameter groups, the learning rate schedule, and the EMA of the weights."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn, optim
from torch.optim import Optimizer

from utils.train.hyp import Hyp

M = TypeVar("M", bound=nn.Module)
NOMINAL_BATCH = 64  # the hyperparameters were tuned for it; smaller batches are accumulated up to it
MIN_WARMUP = 100  # batches, unless half of the run is shorter
_NORMS = (
    nn.modules.batchnorm._NormBase,  # batch and instance norm
    nn.GroupNorm,
    nn.LayerNorm,
    nn.LocalResponseNorm,
)


class ModelEMA(Generic[M]):
    """Exponential moving average of the floating point entries of a model's state_dict.

    The decay rises from 0 to `decay` over about `tau` updates, so that the first updates count. Create it
    when the model is final: anchors, classes and memory format are copied once.
    """

    def __init__(self, model: M, decay: float = 0.9999, tau: float = 2000, updates: int = 0) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.tau = tau
        self.updates = updates
        self._own = _floating(self.model)

    def replace(self, model: M) -> None:
        """Continue with another averaged model."""
        self.model = model
        self._own = _floating(model)

    def decay_at(self, updates: int) -> float:
        """Return the decay of the given update, counted from 1."""
        return self.decay * (1 - math.exp(-updates / self.tau))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Update the average with the current weights of `model`."""
        self.updates += 1
        # One call for all tensors: a Python loop over 350 of them costs more than the arithmetic.
        torch._foreach_lerp_(self._own, _floating(model), 1 - self.decay_at(self.updates))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the averaged weights."""
        return self.model.state_dict()

    def load_state_dict(self, state: dict[str, Tensor], updates: int) -> None:
        """Restore saved weights and the number of updates they have had."""
        self.model.load_state_dict(state)
        self.updates = updates


def _floating(model: nn.Module) -> list[Tensor]:
    return [value for value in model.state_dict().values() if value.dtype.is_floating_point]


def accumulation(batch_size: int, nominal: int = NOMINAL_BATCH) -> int:
    """Return the number of batches per optimizer step after the warmup."""
    return max(round(nominal / batch_size), 1)


def scaled_decay(weight_decay: float, batch_size: int, nominal: int = NOMINAL_BATCH) -> float:
    """Return the weight decay, scaled to the number of images per optimizer step."""
    return weight_decay * batch_size * accumulation(batch_size, nominal) / nominal


def parameter_groups(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """Split parameters into biases, weights (the only ones with weight decay) and weights of norm layers."""
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
    seen: set[int] = set()  # a layer that is shared by two others occurs twice
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
    nominal: int = NOMINAL_BATCH,
) -> optim.Optimizer:
    """Create SGD (with Nesterov momentum), Adam, AdamW or RMSProp over the three parameter groups.

    Each group has `initial_lr`, from which the schedule computes `lr`.

    Args:
        model: to be trained.
        name: SGD, Adam, AdamW or RMSProp.
        hyp: hyperparameters.
        batch_size: of one forward pass.
        new: names of parameters that were not loaded from the initial weights.
        new_gain: factor on their learning rate; unless it is 1 they get three separate groups.
        nominal: images per optimizer step for which the weight decay is given.
    """
    kinds = parameter_groups(model)
    decays = (0.0, scaled_decay(hyp["weight_decay"], batch_size, nominal), 0.0)
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
    optimizer: optim.Optimizer
    if name == "SGD":
        sgd = _without_compiler(optim.SGD)
        optimizer = sgd(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=fused)
        _start_momentum(optimizer)
    elif name == "RMSProp":
        optimizer = _without_compiler(optim.RMSprop)(groups, lr=lr, momentum=momentum)
    else:
        adam = _without_compiler(optim.Adam if name == "Adam" else optim.AdamW)
        optimizer = adam(groups, lr=lr, betas=(momentum, 0.999), fused=fused)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    return optimizer


@cache
def _without_compiler(kind: type[Any]) -> type[Any]:
    """Return an optimizer class whose methods do not import torch.compile, which takes a second or more.

    PyTorch excludes the methods from compilation by a decorator that imports it at the first call, although
    nothing is compiled. What another version does not decorate stays as it is.
    """
    names = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: getattr(getattr(kind, name), "__wrapped__", getattr(kind, name)) for name in names}
    if step := getattr(kind.step, "__wrapped__", None):
        plain["step"] = torch.no_grad()(step)
    return type(kind.__name__, (kind,), plain)


def _start_momentum(optimizer: optim.Optimizer) -> None:
    """Create the momentum buffers, as zeros, before the first step; this does not change the steps.

    Fused SGD fails on parameters that are unfrozen later, such as those of `--graft-freeze`.
    """
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            if group["momentum"] and parameter.requires_grad:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def describe_optimizer(optimizer: optim.Optimizer) -> str:
    """Return the usual log line: optimizer, learning rate, and the sizes of the groups."""
    biases, weights, norms, *separate = optimizer.param_groups
    more = (
        f", {sum(len(g['params']) for g in separate)} new with lr={separate[0]['initial_lr']:g}"
        if separate
        else ""
    )
    return (
        f"{type(optimizer).__name__}(lr={weights['initial_lr']:g}) with parameter groups "
        f"{len(norms['params'])} weight(decay=0.0), "
        f"{len(weights['params'])} weight(decay={weights['weight_decay']:g}), "
        f"{len(biases['params'])} bias{more}"
    )


def restore_optimizer(optimizer: optim.Optimizer, state: dict) -> None:
    """Load a saved state, each tensor in the memory format of its parameter.

    Fused kernels iterate over parameter, gradient and momentum in memory order: a buffer in another
    format (channels last or not) would be paired with the wrong weights.
    """
    optimizer.load_state_dict(state)
    for parameter, buffers in optimizer.state.items():
        for key, value in buffers.items():
            if torch.is_tensor(value) and value.shape == parameter.shape:
                buffers[key] = torch.empty_like(parameter).copy_(value)


def linear(epoch: float, epochs: int, lrf: float) -> float:
    """Return the learning rate factor, which falls linearly from 1 to `lrf`."""
    return (1 - epoch / epochs) * (1 - lrf) + lrf


def cosine(epoch: float, epochs: int, lrf: float) -> float:
    """Return the learning rate factor, which falls from 1 to `lrf` along half a cosine."""
    return 1 + (lrf - 1) * (1 - math.cos(math.pi * epoch / epochs)) / 2


@dataclass(frozen=True)
class Schedule:
    """Learning rate, momentum and accumulation of a run, as pure functions of the step.

    Nothing is remembered between steps, so a resumed run follows the same curve without a saved scheduler.
    """

    hyp: Hyp
    epochs: int
    batches: int  # per epoch
    batch_size: int
    cos_lr: bool = False
    nominal: int = NOMINAL_BATCH  # images per optimizer step

    @property
    def warmup(self) -> int:
        """Number of warmup batches: at least 100, at most half of the run; 0 if warmup_epochs is 0.

        Without the upper bound a short run would never leave its warmup.
        """
        if self.hyp["warmup_epochs"] == 0:
            return 0
        wanted = max(round(self.hyp["warmup_epochs"] * self.batches), MIN_WARMUP)
        return min(wanted, self.epochs * self.batches // 2)

    def factor(self, epoch: int) -> float:
        """Return the learning rate factor of an epoch."""
        return (cosine if self.cos_lr else linear)(epoch, self.epochs, self.hyp["lrf"])

    def accumulate(self, step: int) -> int:
        """Return the number of batches per optimizer step: 1 at the start, up to the nominal batch size."""
        return max(1, round(self._ramp(step, 1, self.nominal / self.batch_size)))

    def set(self, optimizer: Optimizer, step: int) -> None:
        """Set the learning rates and momentum of a step, counted in batches over the run.

        In the warmup the rate of the biases falls from `warmup_bias_lr`; all others rise from 0.
        """
        factor = self.factor(step // self.batches)
        for index, group in enumerate(optimizer.param_groups):
            start = self.hyp["warmup_bias_lr"] if index % 3 == 0 else 0.0  # one or two sets of three groups
            group["lr"] = self._ramp(step, start, group["initial_lr"] * factor)
            if "momentum" in group:
                group["momentum"] = self._ramp(step, self.hyp["warmup_momentum"], self.hyp["momentum"])

    def _ramp(self, step: int, start: float, end: float) -> float:
        """Interpolate linearly from `start` at step 0 to `end` at the end of the warmup; `end` after it."""
        if step >= self.warmup:
            return end
        return start + (end - start) * step / self.warmup
