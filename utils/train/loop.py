"""One epoch of training, a function for each phase of a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.base.progress import Bar
from utils.base.seeds import generator
from utils.data.loader import Loader
from utils.loggers.callbacks import CallbackList
from utils.train.interrupts import CheckpointHook
from utils.train.loss_meter import LiveRow, LossMeter
from utils.train.optim import Schedule
from utils.train.state import TrainState

MAX_NORM = 10.0  # of all gradients together
QUAD_GAIN = 4  # a quad batch has a quarter of the images
_SCALE_STREAM = 1  # keeps the draws of multi-scale apart from those of the images


@dataclass(frozen=True)
class TrainConfig:
    """How every epoch of a run is trained."""

    schedule: Schedule
    imgsz: int
    stride: int  # image sizes are multiples of it
    seed: int = 0
    multi_scale: bool = False
    quad: bool = False
    frozen: Sequence[nn.Module] = ()  # layers that stay as they are
    grafted: Sequence[nn.Parameter] = ()  # ... and parameters that do in the first epochs
    graft_freeze: int = 0  # so many


def train_one_epoch(
    epoch: int,
    state: TrainState,
    loader: Loader,
    config: TrainConfig,
    callbacks: CallbackList,
    checkpoint_hook: CheckpointHook | None = None,
) -> list[float]:
    """Train on the loader's batches and return the epoch's mean box, obj and cls losses.

    Gradients of an unfinished accumulation are dropped at the end, as in the original; so nothing
    but the weights, their averages and a few counters passes from one epoch to the next.

    Args:
        epoch: counted from 0.
        state: what is trained; its progress says where in the epoch to begin.
        loader: the batches.
        config: how.
        callbacks: callbacks.
        checkpoint_hook: called after each update of the weights, when no gradient waits and `state` is whole.

    Raises:
        DivergedError: a loss or a gradient is not finite.
    """
    callbacks.on_train_epoch_start(epoch)
    first = state.progress.first_batch
    hold = epoch < config.graft_freeze
    for parameter in config.grafted:
        parameter.requires_grad_(not hold)
    set_train_mode(state.model, config.frozen, config.grafted if hold else ())
    state.optimizer.zero_grad()
    loader.set_epoch(epoch, first)
    meter = LossMeter(state.device, epoch, state.progress.losses, first)
    bar = Bar(loader, total=len(loader) - first)
    row = LiveRow(bar, meter, state.device, config.schedule.epochs)
    for index, batch in enumerate(bar, first):
        step = epoch * len(loader) + index
        callbacks.on_train_batch_start(step)
        config.schedule.set(state.optimizer, step)
        images = to_device(batch.images, state.device)
        if config.multi_scale:
            images = rescale(images, random_size(config, epoch, index), config.stride)
        # The targets stay on the CPU: assigning them elsewhere would wait for the device's queue.
        meter.add(backward(state, images, batch.targets, config), index)
        updated = step - state.progress.last_update >= config.schedule.accumulate(step)
        if updated:
            meter.watch(update_weights(state, step, callbacks), index)
        callbacks.on_train_batch_end(step, batch.images, batch.targets, batch.paths)
        row.show(len(batch.targets), images.shape[-1], last=index + 1 == len(loader))
        if is_stopped(state, callbacks, updated):
            break
        if updated and checkpoint_hook is not None:
            checkpoint_hook(index + 1, meter)
    state.progress.note(len(loader), meter)
    state.process_group.align(state.model, state.ema.model)
    callbacks.on_train_epoch_end(epoch)
    return meter.read()


def is_stopped(state: TrainState, callbacks: CallbackList, updated: bool) -> bool:
    """Whether a callback wants the run to end; processes of a process_group ask each other at each update."""
    if state.process_group.world == 1:
        state.stopped = callbacks.stop
    elif updated:
        state.stopped = bool(state.process_group.any(int(callbacks.stop)))
    return state.stopped


def set_train_mode(model: nn.Module, frozen: Iterable[nn.Module], held: Iterable[nn.Parameter] = ()) -> None:
    """Switch to training, except for batch norms that are frozen or held: their statistics would drift."""
    model.train()
    still = {id(module) for layer in frozen for module in layer.modules()}
    weights = {id(parameter) for parameter in held}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            id(module) in still or id(module.weight) in weights
        ):
            module.eval()


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Turn images (B, 3, H, W) uint8 into float 0-1 on the device, channels last in memory."""
    moved = images.to(device, non_blocking=True)
    return moved.to(torch.float32, memory_format=torch.channels_last).div_(255)


def random_size(config: TrainConfig, epoch: int, index: int) -> int:
    """Draw the image size of a batch: half to one and a half times the usual, in whole strides."""
    low, high = int(config.imgsz * 0.5), int(config.imgsz * 1.5) + config.stride
    drawn = int(generator(config.seed, epoch, index, _SCALE_STREAM).integers(low, high))
    return max(drawn // config.stride, 1) * config.stride


def rescale(images: Tensor, longest: int, stride: int) -> Tensor:
    """Resize images so that their longer side is about `longest`, both sides in whole strides."""
    sides = images.shape[2:]
    ratio = longest / max(sides)
    if ratio == 1:
        return images
    size = [math.ceil(side * ratio / stride) * stride for side in sides]
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def backward(state: TrainState, images: Tensor, targets: Tensor, config: TrainConfig) -> Tensor:
    """Run the model forward and back, adding to the gradients; return the three losses of the whole batch."""
    sums = state.process_group.sums if state.process_group.world > 1 else None
    with torch.autocast(state.device.type, dtype=state.precision, enabled=state.precision is not None):
        loss, items = state.loss(state.model(images), targets, sums)
    if config.quad:
        loss = loss * QUAD_GAIN
    state.scaler.scale(loss).backward()
    return state.process_group.sum_tensor(items)


def update_weights(state: TrainState, step: int, callbacks: CallbackList) -> Tensor:
    """Make one step of the optimizer and of the moving average; return the gradients' norm.

    With a scaler the norm is given as 0: it skips the updates that overflow by itself.
    """
    state.process_group.sum_gradients(state.model.parameters())
    state.scaler.unscale_(state.optimizer)
    norm = clip_gradients(state.model.parameters(), MAX_NORM)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    callbacks.on_before_zero_grad(step)
    state.optimizer.zero_grad()
    state.ema.update(state.model)
    state.progress.last_update = step
    callbacks.optimizer_step(step)
    return torch.zeros_like(norm) if state.scaler.is_enabled() else norm


def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> Tensor:
    """Scale all gradients so that their common 2-norm is at most `most`; return the norm before.

    torch's own function has no fast path on the CPU, and none is needed: this is three calls.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm
