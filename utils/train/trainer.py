"""Train one model: build it, run its epochs, and evaluate the best checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.user_blocks import load_blocks
from utils.base.errors import memory_errors
from utils.base.log import LOG
from utils.base.paths import check_writable
from utils.loggers.callbacks import Callbacks
from utils.train.distributed import ProcessGroup, make_process_group
from utils.train.interrupts import CheckpointHook, StopSignals
from utils.train.loaders import update_image_weights
from utils.train.loop import train_one_epoch
from utils.train.resume import after_restart, find_run
from utils.train.run_dir import TrainResult, guard, table_row
from utils.train.task import Training, build_setup, start
from utils.train.train_options import TrainOptions
from utils.train.validation import finish, validate_epoch


def train(options: TrainOptions, user_callbacks: Sequence[Callbacks] = ()) -> TrainResult:
    """Train one model from its first epoch, or from the checkpoint of `--resume`.

    Raises:
        ConfigError, DataError: options, weights or images that cannot be used.
        DivergedError: the loss is not finite.
    """
    load_blocks(options.blocks)  # of the command line: a checkpoint to resume imports nothing
    if not options.resume:
        check_writable(Path(options.project))
    with make_process_group(options) as process_group:
        return _train(after_restart(options, process_group), process_group, user_callbacks)


def _train(
    options: TrainOptions, process_group: ProcessGroup, user_callbacks: Sequence[Callbacks]
) -> TrainResult:
    """Build the training, run its epochs, and evaluate the best checkpoint."""
    resumed = find_run(options) if options.resume else None
    setup = build_setup(options, resumed, process_group, user_callbacks)
    loaders = setup.loaders
    with (
        guard(setup.run, loaders, setup.callbacks),
        memory_errors(loaders.batch_size, (loaders.imgsz,), process_group.world),
    ):
        training = start(setup)
        _train_epochs(training)
        if setup.run.problem:
            setup.run.save(training.state.content(), best=False)
            setup.run.check_saved()
        return (
            setup.run.result(training.state.progress.fitness) if training.state.stopped else finish(training)
        )


def _train_epochs(training: Training) -> None:
    """Train and validate until the last epoch, early stopping, or a stop signal."""
    setup, state = training.setup, training.state
    options, run, callbacks, progress = setup.options, setup.run, setup.callbacks, state.progress
    with StopSignals() as signals:
        hook = CheckpointHook(state, run, signals, options.save_steps)
        for epoch in state.epochs_left(options.epochs):
            if options.image_weights:
                update_image_weights(setup.loaders, setup.data.nc, progress.maps)
            losses = train_one_epoch(epoch, state, setup.loaders.train, training.config, callbacks, hook)
            if state.stopped:
                return
            last = epoch + 1 == options.epochs or state.stopper.possible_stop
            with hook.immediate():
                result = validate_epoch(training) if last or not options.noval else None
            best = progress.record(epoch, result)
            stop = state.stopper(epoch, progress.fitness)
            row = table_row(run.columns, epoch, losses, result, state.optimizer)
            run.write_row(row)
            callbacks.on_fit_epoch_end(epoch, row)
            if last or not options.nosave:
                run.save(state.content(), best=best, period=options.save_period)
                callbacks.on_model_save(run.last, epoch, best)
            if stop:
                LOG.info(state.stopper.describe())
                break
        if signals.received:  # since the last step
            signals.end()
