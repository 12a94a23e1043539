"""A training as one object: what it is built of, and the state that changes while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler

from models.yolo import BaseModel, DetectionModel
from utils.base.log import LOG, color
from utils.base.paths import relative_to_cwd
from utils.data.dataset_yaml import DataSpec
from utils.loggers.callbacks import CallbackList, Callbacks
from utils.tasks.task import Task, get_task
from utils.train import build
from utils.train.build import choose_precision
from utils.train.callbacks import make_callbacks
from utils.train.distributed import ProcessGroup
from utils.train.hyp import Hyp
from utils.train.loaders import Loaders, make_loaders
from utils.train.loop import TrainConfig
from utils.train.optim import ModelEMA, Schedule, describe_optimizer, make_optimizer
from utils.train.resume import ResumedRun, note_launch
from utils.train.run_dir import RunDir, differences, run_metadata
from utils.train.state import EarlyStopping, Origin, Progress, TrainState
from utils.train.train_options import TrainOptions


@dataclass(frozen=True)
class TrainSetup:
    """Options, hyperparameters, data, model and loaders: what a training is built of."""

    options: TrainOptions
    task: Task
    hyp: Hyp
    data: DataSpec
    model: BaseModel
    origin: Origin  # which tensors of the model came from the initial weights
    frozen: list[nn.Module]
    loaders: Loaders
    process_group: ProcessGroup
    resumed: ResumedRun | None
    run: RunDir
    callbacks: CallbackList


@dataclass(frozen=True)
class Training:
    """A training that is ready to start or continue."""

    setup: TrainSetup
    state: TrainState
    config: TrainConfig


def build_setup(
    options: TrainOptions,
    resumed: ResumedRun | None,
    process_group: ProcessGroup,
    user_callbacks: Sequence[Callbacks] = (),
) -> TrainSetup:
    """Build everything that a training needs, in the order in which errors are cheapest to find.

    Args:
        options: of the train script.
        resumed: the run to continue, whose options take the place of `options`.
        process_group: of this process.
        user_callbacks: called after our own callbacks.

    Raises:
        ConfigError, DataError: options, weights or data that cannot be used.
    """
    options = resumed.options if resumed is not None else options
    device, task = build.prepare_machine(options), get_task(options.model_task)
    hyp = build.read_hyp(options, task)
    data = task.read_data(options)
    model, origin = build.make_model(options, task, hyp, data.names, device)
    task.check(model.task, options.cfg or options.weights, task.scripts[0])
    frozen = build.freeze(model, options.freeze)
    build.check_graft_freeze(model, origin, options)
    options = build.resolve_batch_size(options, model)
    loaders = make_loaders(options, task, hyp, data, model, process_group, pin_memory=device.type == "cuda")
    callbacks = make_callbacks(options, task, user_callbacks, process_group, loaders)
    run = RunDir.of_process_group(options, process_group, resumed.folder if resumed else None, task)
    return TrainSetup(
        options, task, hyp, data, model, origin, frozen, loaders, process_group, resumed, run, callbacks
    )


def start(setup: TrainSetup) -> Training:
    """Fit the anchors, restore the checkpoint of a resumed run, and open the run directory.

    Raises:
        ConfigError, DataError: a checkpoint that does not fit, or a directory that cannot be written.
    """
    options, hyp, loaders, resumed = setup.options, setup.hyp, setup.loaders, setup.resumed
    if resumed is None and isinstance(setup.model, DetectionModel):
        build.fit_anchors(setup.model, loaders, options, hyp)
    state = make_state(setup)
    metadata = run_metadata(options.seed, {"train": loaders.dataset, "val": loaders.val.dataset})
    if resumed is not None:
        for line in differences(resumed.checkpoint.metadata, metadata):
            LOG.warning(f"resuming, but {line}")
    setup.run.open(options, hyp, state.progress.epoch, metadata)
    if setup.process_group.is_main:
        note_launch(setup.run.folder)
    _announce(setup)
    return Training(setup, state, make_train_config(setup, state))


def make_state(setup: TrainSetup) -> TrainState:
    """Return the state before the first step, or as the checkpoint of a resumed run has it.

    The model is final by now: the EMA starts as a copy of it.
    """
    options, hyp, model, loaders = setup.options, setup.hyp, setup.model, setup.loaders
    gains = setup.task.scale_hyp(hyp, model, loaders.imgsz)
    model.hyp = dict(gains)
    nominal = setup.task.nominal_batch or loaders.batch_size
    optimizer = make_optimizer(
        model, options.optimizer, hyp, loaders.batch_size, setup.origin.new, options.graft_lr, nominal
    )
    LOG.info(f"{color('optimizer:', 'blue')} {describe_optimizer(optimizer)}")
    precision = choose_precision(options.amp, model, setup.loaders.imgsz)
    state = TrainState(
        model=model,
        ema=ModelEMA(model),
        optimizer=optimizer,
        scaler=GradScaler("cuda", enabled=precision == torch.float16),  # bfloat16 has the range of float32
        loss=setup.task.make_loss(model, gains, options),
        stopper=EarlyStopping(options.patience),
        progress=Progress(),
        origin=setup.origin,
        precision=precision,
        process_group=setup.process_group,
    )
    if options.compile:
        model.compile()  # in place: the keys of its state_dict stay
    if setup.resumed is not None and setup.resumed.checkpoint.training is not None:
        state.restore(setup.resumed.checkpoint.training)
    return state


def make_train_config(setup: TrainSetup, state: TrainState) -> TrainConfig:
    options, loaders = setup.options, setup.loaders
    transferred = set(state.origin.transferred)
    grafted = [p for key, p in state.model.named_parameters() if key in transferred and p.requires_grad]
    return TrainConfig(
        schedule=Schedule(
            setup.hyp,
            options.epochs,
            len(loaders.train),
            loaders.batch_size,
            options.cos_lr,
            setup.task.nominal_batch or loaders.batch_size,
        ),
        imgsz=loaders.imgsz,
        stride=loaders.stride,
        seed=options.seed,
        multi_scale=options.multi_scale,
        quad=options.quad,
        row=setup.task.row_style,
        normalize=setup.task.normalize,
        frozen=setup.frozen,
        grafted=grafted if options.graft_freeze else (),
        graft_freeze=options.graft_freeze,
    )


def _announce(setup: TrainSetup) -> None:
    """Log what is about to start, and call the callbacks of the pretrain routine."""
    options, loaders, callbacks, folder = setup.options, setup.loaders, setup.callbacks, setup.run.folder
    callbacks.on_pretrain_routine_start(folder)
    callbacks.on_params_update(options.as_dict() | {"hyp": dict(setup.hyp)})
    callbacks.on_pretrain_routine_end(loaders.dataset.labels.joined(), setup.data.names)
    LOG.info(
        f"Image sizes {loaders.imgsz} train, {loaders.imgsz} val\n"
        f"Using {loaders.train.workers} dataloader workers\n"
        f"Logging results to {color(relative_to_cwd(folder), 'bold')}\n"
        f"{setup.task.describe_start(options, setup.data)}"
    )
    callbacks.on_train_start()
