"""Measure the model: its average after an epoch, and best.pt when all is done."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

import torch

from models.weights import load_for_inference
from models.yolo import DetectionModel
from utils.base.log import LOG, color
from utils.base.paths import relative_to_cwd
from utils.data.dataset_yaml import DataSpec
from utils.loggers.callbacks import Callbacks
from utils.train.session import METRICS, RunFolder, TrainResult
from utils.train.setup import Loaders
from utils.train.state import TrainState
from utils.val.evaluate import evaluate
from utils.val.result import EvalResult

FINAL_IOU = {True: 0.65, False: 0.6}  # COCO's results are published with 0.65


def validate_epoch(
    state: TrainState, loaders: Loaders, data: DataSpec, opt: Namespace, callbacks: Callbacks
) -> EvalResult:
    """Measure the moving average of the weights on the validation pictures."""
    return evaluate(
        state.ema.model,
        loaders.val,
        data.names,
        device=state.device,
        half=state.amp,
        single_cls=opt.single_cls,
        loss=state.loss,
        callbacks=callbacks,
    )


def finish(
    run: RunFolder,
    state: TrainState,
    loaders: Loaders,
    data: DataSpec,
    opt: Namespace,
    callbacks: Callbacks,
    row: dict[str, float],
) -> TrainResult:
    """Strip the checkpoints, measure best.pt once more as it will be used, and draw the results."""
    loaders.train.close()
    run.say_how_long(state.progress.epoch)
    run.strip()
    fitness = state.progress.best_fitness
    if run.best.exists():
        result = validate_best(run.best, loaders, data, opt, state, callbacks)
        fitness = result.fitness()
        row = row | dict(zip(METRICS, result.results, strict=True))
    callbacks.on_train_end(run.folder, row)
    LOG.info(f"Results saved to {color(str(run), 'bold')}")
    return run.result(fitness, row)


def validate_best(
    path: Path, loaders: Loaders, data: DataSpec, opt: Namespace, state: TrainState, callbacks: Callbacks
) -> EvalResult:
    """Measure a finished checkpoint, print a row for each class, and draw curves and batches."""
    LOG.info(f"\nValidating {relative_to_cwd(path)}...")
    device: torch.device = state.device
    model = load_for_inference(path, device)
    assert isinstance(model, DetectionModel)  # one file, so no ensemble
    LOG.info(model.info())
    return evaluate(
        model,
        loaders.val,
        data.names,
        device=device,
        half=state.amp,
        iou_thres=FINAL_IOU[data.is_coco],
        single_cls=opt.single_cls,
        loss=state.loss,
        save_dir=path.parents[1],
        plots=not opt.noplots,
        save_json=data.is_coco,
        json_stem=path.stem,
        data=data,
        verbose=True,
        callbacks=callbacks,
    )
