"""One epoch of training, with a function for each phase of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from utils.base.log import Bar
from utils.base.seeds import generator, seed_step
from utils.data.loader import Batch, Loader
from utils.loggers.callbacks import CallbackList
from utils.native.maps import unit_images
from utils.tasks.task import Task
from utils.train.interrupts import CheckpointHook
from utils.train.loss_meter import LiveRow, LossMeter, RowStyle
from utils.train.optim import Schedule
from utils.train.state import TrainState

MAX_NORM = 10.0  # gradients are clipped to this 2-norm
QUAD_GAIN = 4  # loss factor: a quad batch has a quarter of the images
_SCALE_STREAM = 1  # random stream of --multi-scale, separate from those of the images


@dataclass(frozen=True)
class TrainConfig:
    """Settings of every epoch of a run."""

    schedule: Schedule
    imgsz: int
    stride: int  # image sizes are multiples of it
    seed: int = 0
    multi_scale: bool = False
    quad: bool = False
    row: RowStyle = RowStyle(Task.losses)  # with a title for each item of the loss
    normalize: Callable[[Tensor], Tensor] | None = None  # of images in 0-1, in place
    frozen: Sequence[nn.Module] = ()  # layers that are never trained
    grafted: Sequence[nn.Parameter] = ()  # parameters that are not trained in the first `graft_freeze` epochs
    graft_freeze: int = 0


def train_one_epoch(
    epoch: int,
    state: TrainState,
    loader: Loader,
    config: TrainConfig,
    callbacks: CallbackList,
    checkpoint_hook: CheckpointHook | None = None,
) -> list[float]:
    """Train on the batches of the loader and return the mean losses of the epoch.

    Gradients of an unfinished accumulation are dropped at the end, as in the original.

    Args:
        epoch: counted from 0.
        state: of the training; its progress says at which batch of the epoch to start.
        loader: batches of images and targets.
        config: settings of the run.
        callbacks: called at each event.
        checkpoint_hook: called after each optimizer step, when no gradient is pending.

    Raises:
        DivergedError: a loss or a gradient is not finite.
    """
    callbacks.on_train_epoch_start(epoch)
    first = state.progress.first_batch
    _prepare_model(state, config, freeze_grafted=epoch < config.graft_freeze)
    state.optimizer.zero_grad()
    loader.set_epoch(epoch, first)
    sums = state.progress.losses or [0.0] * len(config.row.losses)
    meter = LossMeter(state.device, epoch, sums, first)
    bar = Bar(loader, total=len(loader) - first)
    row = LiveRow(bar, meter, state.device, config.schedule.epochs, config.row)
    for index, batch in enumerate(bar, first):
        step = epoch * len(loader) + index
        callbacks.on_train_batch_start(step)
        callbacks.on_train_batch(step, batch)
        seed_step(config.seed, epoch, index, state.process_group.rank)
        config.schedule.set(state.optimizer, step)
        items, size = add_gradients(state, batch, config, epoch, index)
        meter.add(state.process_group.sum_tensor(items), index)
        updated = step - state.progress.last_update >= config.schedule.accumulate(step)
        if updated:
            meter.watch(update_weights(state, step, callbacks), index)
        callbacks.on_train_batch_end(step, batch.images, batch.targets, batch.paths)
        row.show(len(batch.targets), size, last=index + 1 == len(loader))
        if is_stopped(state, callbacks, updated):
            break
        if updated and checkpoint_hook is not None:
            checkpoint_hook(index + 1, meter)
    state.progress.note(len(loader), meter)
    state.process_group.broadcast_buffers(state.model, state.ema.model)
    callbacks.on_train_epoch_end(epoch)
    return meter.read()


def add_gradients(
    state: TrainState, batch: Batch, config: TrainConfig, epoch: int, index: int
) -> tuple[Tensor, int]:
    """Add the gradients of a batch; return the items of its loss (see `TrainConfig.row`) and the image size.

    The graph is freed with this function: nodes that lived until the next forward pass would divide the free
    memory, and the process would take a sixth more of it.
    """
    images = prepare_images(batch.images, state.device, config, epoch, index)
    # The targets stay on the CPU: assigning them elsewhere would wait for the device's queue.
    loss, items = compute_loss(state, images, batch.labels, config)
    state.scaler.scale(loss).backward()
    return items.detach(), images.shape[-1]


def _prepare_model(state: TrainState, config: TrainConfig, freeze_grafted: bool) -> None:
    """Switch to training mode; frozen parameters and batch norms stay as they are."""
    for parameter in config.grafted:
        parameter.requires_grad_(not freeze_grafted)
    set_train_mode(state.model, config.frozen, config.grafted if freeze_grafted else ())


def is_stopped(state: TrainState, callbacks: CallbackList, updated: bool) -> bool:
    """Return whether a callback asks the run to end; several ranks agree on it at each optimizer step."""
    if state.process_group.world == 1:
        state.stopped = callbacks.stop
    elif updated:
        state.stopped = bool(state.process_group.maximum(int(callbacks.stop)))
    return state.stopped


def set_train_mode(model: nn.Module, frozen: Iterable[nn.Module], held: Iterable[nn.Parameter] = ()) -> None:
    """Switch to training mode, except for frozen batch norms, whose statistics would drift."""
    model.train()
    fixed = {id(module) for layer in frozen for module in layer.modules()}
    weights = {id(parameter) for parameter in held}
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and (
            id(module) in fixed or id(module.weight) in weights
        ):
            module.eval()


def prepare_images(
    images: Tensor, device: torch.device, config: TrainConfig, epoch: int, index: int
) -> Tensor:
    """Convert the images of a batch for the network; with --multi-scale, resize them to a random size."""
    images = to_device(images, device)
    if config.normalize is not None:
        images = config.normalize(images)
    return rescale(images, random_size(config, epoch, index), config.stride) if config.multi_scale else images


def to_device(images: Tensor, device: torch.device) -> Tensor:
    """Convert images (B, 3, H, W) from uint8 to float 0-1 on the device, channels last in memory."""
    return unit_images(images.to(device, non_blocking=True))


def random_size(config: TrainConfig, epoch: int, index: int) -> int:
    """Draw the image size of a batch: 0.5 to 1.5 times imgsz, a multiple of the stride."""
    low, high = int(config.imgsz * 0.5), int(config.imgsz * 1.5) + config.stride
    drawn = int(generator(config.seed, epoch, index, _SCALE_STREAM).integers(low, high))
    return max(drawn // config.stride, 1) * config.stride


def rescale(images: Tensor, longest: int, stride: int) -> Tensor:
    """Resize images so that their longer side is about `longest`, both sides multiples of the stride."""
    sides = images.shape[2:]
    ratio = longest / max(sides)
    if ratio == 1:
        return images
    size = [math.ceil(side * ratio / stride) * stride for side in sides]
    return functional.interpolate(images, size=size, mode="bilinear", align_corners=False)


def compute_loss(
    state: TrainState, images: Tensor, labels: Sequence[Tensor], config: TrainConfig
) -> tuple[Tensor, Tensor]:
    """Run the model on a batch; return the loss to minimise and its items, see `TrainConfig.row`."""
    loss_of_task: Any = state.loss  # takes the labels of its task
    sums = state.process_group.sum_counts if state.process_group.world > 1 else None
    with torch.autocast(state.device.type, dtype=state.precision, enabled=state.precision is not None):
        loss, items = loss_of_task(state.model(images), *labels, sum_counts=sums)
    return (loss * QUAD_GAIN if config.quad else loss), items


def update_weights(state: TrainState, step: int, callbacks: CallbackList) -> Tensor:
    """Make one step of the optimizer and of the EMA; return the norm of the gradients.

    With a GradScaler the norm is returned as 0, as the scaler skips steps that overflow by itself.
    """
    state.process_group.sum_gradients(state.model.parameters())
    state.scaler.unscale_(state.optimizer)
    norm = nn.utils.clip_grad_norm_(state.model.parameters(), MAX_NORM, foreach=True)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    callbacks.on_before_zero_grad(step)
    state.optimizer.zero_grad()
    state.ema.update(state.model)
    state.progress.last_update = step
    callbacks.optimizer_step(step)
    return torch.zeros_like(norm) if state.scaler.is_enabled() else norm
