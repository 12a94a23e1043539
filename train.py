"""Train a YOLOv5 detector, with or without LSKA.

python train.py --img 320 --data data/shapes.yaml --cfg yolov5n-LSKA.yaml --weights yolov5n.pt
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "." in __name__:  # `yolov5.train`: the packages are beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from utils.base import script
from utils.base.log import LOG, set_up_console
from utils.base.options import known_keywords
from utils.base.paths import check_writable
from utils.base.yolov5_names import serve
from utils.train.train_options import TrainOptions, options_from, parse_options

if TYPE_CHECKING:
    from utils.loggers.callbacks import Callbacks
    from utils.train.distributed import ProcessGroup
    from utils.train.run_dir import TrainResult
    from utils.train.task import TrainTask


def train(options: TrainOptions, user_callbacks: Sequence[Callbacks] = ()) -> TrainResult:
    """Train one model from its first epoch, or from the checkpoint of `--resume`; with `--evolve`, many.

    Raises:
        ConfigError, DataError: options, weights or images that cannot be used.
        DivergedError: the loss is not finite.
    """
    if not options.resume:
        check_writable(Path(options.project))
    if options.evolve is not None:
        from studies.evolve.evolution import evolve

        return evolve(options, user_callbacks)
    from utils.train.distributed import make_process_group
    from utils.train.resume import after_restart

    with make_process_group(options) as process_group:
        return _train(after_restart(options, process_group), process_group, user_callbacks)


def _train(
    options: TrainOptions, process_group: ProcessGroup, user_callbacks: Sequence[Callbacks]
) -> TrainResult:
    """Build the training, run its epochs, and evaluate the best checkpoint."""
    from utils.train.resume import find_run
    from utils.train.run_dir import guard
    from utils.train.task import build_setup, start
    from utils.train.validation import finish

    resumed = find_run(options) if options.resume else None
    setup = build_setup(options, resumed, process_group, user_callbacks)
    with guard(setup.run, setup.loaders, setup.callbacks):
        task = start(setup)
        _train_epochs(task)
        return setup.run.result(task.state.progress.fitness) if task.state.stopped else finish(task)


def _train_epochs(task: TrainTask) -> None:
    """Train and validate until the last epoch, early stopping, or a stop signal."""
    from utils.train.interrupts import CheckpointHook, StopSignals
    from utils.train.loaders import update_image_weights
    from utils.train.loop import train_one_epoch
    from utils.train.run_dir import table_row
    from utils.train.validation import validate_epoch

    setup, state = task.setup, task.state
    options, run, callbacks, progress = setup.options, setup.run, setup.callbacks, state.progress
    with StopSignals() as signals:
        hook = CheckpointHook(state, run, signals, options.save_steps)
        for epoch in state.epochs_left(options.epochs):
            if options.image_weights:
                update_image_weights(setup.loaders, setup.data.nc, progress.maps)
            losses = train_one_epoch(epoch, state, setup.loaders.train, task.config, callbacks, hook)
            if state.stopped:
                return
            last = epoch + 1 == options.epochs or state.stopper.possible_stop
            with hook.immediate():
                result = validate_epoch(task) if last or not options.noval else None
            best = progress.record(epoch, result)
            stop = state.stopper(epoch, progress.fitness)
            row = table_row(epoch, losses, result, state.optimizer)
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


def run(**keywords: Any) -> TrainResult:
    """Train from Python: keywords are the flags with underscores, `train.run(imgsz=320, epochs=3)`.

    As in the original, keywords that are no flags have no effect; they are logged.
    """
    set_up_console()
    user_callbacks = keywords.pop("callbacks", ())
    if hasattr(user_callbacks, "register_action"):  # functions by event, as in the original
        from utils.compat.callbacks import adapted

        user_callbacks = (adapted(user_callbacks),)
    known = known_keywords(TrainOptions, keywords)
    if ignored := sorted(keywords.keys() - known.keys()):
        LOG.warning(f"train.run: ignored {', '.join(ignored)}, which are no options of train.py")
    return train(options_from(known), user_callbacks)


def main() -> None:
    """Train as the command line says."""
    options = parse_options()
    script.print_args("train", options)
    train(options)


__getattr__, __dir__, _ = serve("train")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
