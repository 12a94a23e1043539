"""Train a YOLOv5 detector, with or without LSKA.

python train.py --img 320 --data data/shapes.yaml --cfg yolov5n-LSKA.yaml --weights yolov5n.pt
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from utils.base import script
from utils.base.log import LOG, set_up_console
from utils.train.train_options import check_options, options_from, parse_options

if TYPE_CHECKING:
    from utils.loggers.callbacks import Callbacks
    from utils.train.distributed import ProcessGroup
    from utils.train.run_dir import TrainResult
    from utils.train.setup import Task


def train(opt: Namespace, user_callbacks: Sequence[Callbacks] = ()) -> TrainResult:
    """Train one model, from its first epoch or from where `--resume` takes it up; with `--evolve`, many.

    Raises:
        ConfigError, DataError: options, weights or images that cannot be used.
        DivergedError: the loss is no longer a number.
    """
    if opt.evolve is not None:
        from studies.evolve.evolution import evolve

        return evolve(opt, user_callbacks)
    from utils.train import resume  # heavy: the flags come first
    from utils.train.distributed import make_process_group

    with make_process_group(opt) as process_group:
        return _train(resume.after_restart(opt, process_group), user_callbacks, process_group)


def _train(opt: Namespace, user_callbacks: Sequence[Callbacks], process_group: ProcessGroup) -> TrainResult:
    from utils.train import resume, setup, validation
    from utils.train.callbacks import make_callbacks
    from utils.train.run_dir import RunDir, guard
    from utils.train.run_metadata import differences, run_identity

    opt, checkpoint = resume.find_run(opt) if opt.resume else (opt, None)
    check_options(opt)
    device = setup.prepare_machine(opt)
    hyp = setup.read_hyp(opt)
    data = setup.read_data(opt)
    model, origin = setup.make_model(opt, hyp, data, device)
    frozen = setup.freeze(model, opt.freeze)
    setup.settle_batch(opt, model)
    loaders = setup.make_loaders(opt, hyp, data, model, process_group)
    callbacks = make_callbacks(opt, user_callbacks, process_group, loaders)
    run = RunDir.of_process_group(opt, process_group)
    with guard(run, loaders, callbacks):
        if checkpoint is None:
            setup.fit_anchors(model, loaders, opt, hyp)
        state = setup.make_state(model, opt, hyp, loaders, origin, process_group, checkpoint)
        config = setup.make_train_config(opt, hyp, loaders, frozen, state)
        identity = run_identity(opt.seed, {"train": loaders.dataset, "val": loaders.val.dataset})
        if checkpoint is not None:
            for line in differences(checkpoint.metadata, identity):
                LOG.warning(f"resuming, but {line}")
        run.open(opt, hyp, state.progress.epoch, identity)
        if process_group.leads:
            resume.note_launch(run.folder)
        setup.announce(run.folder, opt, hyp, data, loaders, callbacks)
        task = setup.Task(opt, data, loaders, callbacks, run, state, config)
        _train_epochs(task)
        return run.result(state.progress.fitness) if state.stopped else validation.finish(task)


def _train_epochs(task: Task) -> None:
    """Train and validate epoch by epoch, until all are done, none gets better, or a signal comes."""
    from utils.train import loop, run_dir, setup, validation
    from utils.train.interrupts import CheckpointHook, StopSignals

    opt, state, run, callbacks = task.opt, task.state, task.run, task.callbacks
    with StopSignals() as signals:
        checkpoint_hook = CheckpointHook(state, run, signals, opt.save_steps)
        for epoch in state.epochs_left(opt.epochs):
            setup.weigh_images(task.loaders, opt, task.data, state.progress)
            losses = loop.train_one_epoch(
                epoch, state, task.loaders.train, task.config, callbacks, checkpoint_hook
            )
            if state.stopped:
                return
            last = epoch + 1 == opt.epochs or state.stopper.possible_stop
            with checkpoint_hook.at_once():
                result = validation.validate_epoch(task) if last or not opt.noval else None
            best = state.progress.record(epoch, result)
            stop = state.stopper(epoch, state.progress.fitness)
            row = run_dir.table_row(epoch, losses, result, state.optimizer)
            run.write_row(row)
            callbacks.on_fit_epoch_end(epoch, row)
            if last or not opt.nosave:
                run.save(state.content(), best=best, period=opt.save_period)
                callbacks.on_model_save(run.last, epoch, best)
            if stop:
                LOG.info(state.stopper.describe())
                break
        if signals.received:  # since the last step
            signals.end()


def run(**keywords: Any) -> TrainResult:
    """Train from Python: keywords are the flags with underscores, `train.run(imgsz=320, epochs=3)`."""
    set_up_console()
    user_callbacks = keywords.pop("callbacks", ())
    return train(options_from(keywords), user_callbacks)


def parse_opt(argv: Sequence[str] | None = None) -> Namespace:
    """Read the command line."""
    return parse_options(argv)


def main() -> None:
    """Train as the command line says."""
    opt = parse_opt()
    shown = {key: value for key, value in vars(opt).items() if key != "given"}
    script.print_args("train", Namespace(**shown))
    train(opt)


if __name__ == "__main__":
    script.main(main)
