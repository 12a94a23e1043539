"""Validate the EMA after each epoch, and best.pt at the end of a training."""

from __future__ import annotations

import torch

from models.weights import load_for_inference
from models.yolo import BaseModel
from utils.base.log import LOG, color
from utils.base.paths import relative_to_cwd
from utils.data.loader import Share
from utils.train.run_dir import TrainResult
from utils.train.task import Training, TrainSetup
from utils.val.accumulator import ValResult
from utils.val.coco_truth import CocoTruth, load_truth
from utils.val.evaluate import FEW_CLASSES, EvalConfig, evaluate
from utils.val.outputs import OutputOptions

FINAL_IOU = {True: 0.65, False: 0.6}  # NMS IoU threshold; COCO results are published with 0.65


def validate_epoch(training: Training) -> ValResult:
    """Evaluate the EMA of the weights on the validation images."""
    setup, state = training.setup, training.state
    return evaluate(
        state.ema.model,
        setup.loaders.val,
        setup.data.names,
        EvalConfig(
            half=state.half,
            single_cls=setup.options.single_cls,
            verbose=getattr(setup.options, "verbose", False),
        ),
        device=state.device,
        loss=state.loss,
        callbacks=setup.callbacks,
        gather=setup.process_group.gather,
        evaluator=setup.task.evaluator(),
    )


def finish(training: Training) -> TrainResult:
    """Strip the checkpoints, evaluate best.pt as it will be used, and plot the results."""
    setup, progress = training.setup, training.state.progress
    run = setup.run
    if not setup.process_group.is_main:
        return run.result(progress.best_fitness, run.row)
    setup.loaders.train.close()
    run.log_duration(progress.epoch)
    setup.callbacks.on_fit_end(run.folder)
    run.strip()
    fitness, row = progress.best_fitness, dict(run.row)
    if run.best.exists():
        result = validate_best(training)
        fitness = result.fitness()
        row |= dict(zip(setup.task.measured, result.results, strict=True))
    setup.callbacks.on_train_end(run.folder, row)
    LOG.info(f"Results saved to {color(str(run), 'bold')}")
    if run.best.exists() and (text := setup.task.describe_end(setup.options, run.best)):
        LOG.info(text)
    return run.result(fitness, row)


def validate_best(training: Training) -> ValResult:
    """Evaluate the final best.pt, log a row for each class, and plot curves and batches."""
    setup, state, path = training.setup, training.state, training.setup.run.best
    setup.loaders.val.set_share(Share())  # rank 0 evaluates all images
    LOG.info(f"\nValidating {relative_to_cwd(path)}...")
    device: torch.device = state.device
    model = load_for_inference(path, device)
    assert isinstance(model, BaseModel)  # one file, so no ensemble
    LOG.info(model.summary())
    return evaluate(
        model,
        setup.loaders.val,
        setup.data.names,
        EvalConfig(
            iou_thres=FINAL_IOU[setup.data.is_coco],
            single_cls=setup.options.single_cls,
            half=state.half,
            verbose=getattr(setup.options, "verbose", True) or len(setup.data.names) < FEW_CLASSES,
        ),
        OutputOptions(
            setup.run.folder,
            plots=not setup.options.noplots,
            save_json=setup.data.is_coco,
            json_stem=path.stem,
            truth=_coco_truth(setup),
        ),
        device=device,
        loss=state.loss,
        callbacks=setup.callbacks,
        evaluator=setup.task.evaluator(),
    )


def _coco_truth(setup: TrainSetup) -> CocoTruth | None:
    """Return the annotations of COCO val2017, which the original scores the final model against, too."""
    if not setup.data.is_coco:
        return None
    paths = [str(path) for path in setup.loaders.val.dataset.image_files]
    return load_truth(setup.data, "val", paths, single_cls=setup.options.single_cls)
