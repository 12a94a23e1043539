"""Measure the model: its average after an epoch, and best.pt when all is done."""

from __future__ import annotations

import torch

from models.weights import load_for_inference
from models.yolo import DetectionModel
from utils.base.log import LOG, color
from utils.base.paths import relative_to_cwd
from utils.data.loader import Share
from utils.train.run_dir import METRICS, TrainResult
from utils.train.setup import Task
from utils.val.accumulator import EvalResult
from utils.val.evaluate import EvalConfig, evaluate
from utils.val.outputs import OutputOptions

FINAL_IOU = {True: 0.65, False: 0.6}  # COCO's results are published with 0.65


def validate_epoch(task: Task) -> EvalResult:
    """Measure the moving average of the weights on the validation images."""
    return evaluate(
        task.state.ema.model,
        task.loaders.val,
        task.data.names,
        EvalConfig(half=task.state.half, single_cls=task.opt.single_cls),
        device=task.state.device,
        loss=task.state.loss,
        callbacks=task.callbacks,
        gather=task.state.process_group.gather,
    )


def finish(task: Task) -> TrainResult:
    """Strip the checkpoints, measure best.pt once more as it will be used, and draw the results."""
    run, progress = task.run, task.state.progress
    if not task.state.process_group.leads:
        return run.result(progress.best_fitness, run.row)
    task.loaders.train.close()
    run.say_how_long(progress.epoch)
    run.strip()
    fitness, row = progress.best_fitness, dict(run.row)
    if run.best.exists():
        result = validate_best(task)
        fitness = result.fitness()
        row |= dict(zip(METRICS, result.results, strict=True))
    task.callbacks.on_train_end(run.folder, row)
    LOG.info(f"Results saved to {color(str(run), 'bold')}")
    return run.result(fitness, row)


def validate_best(task: Task) -> EvalResult:
    """Measure the finished best.pt, print a row for each class, and draw curves and batches."""
    path, state = task.run.best, task.state
    task.loaders.val.set_share(Share())  # one process does it all, and draws
    LOG.info(f"\nValidating {relative_to_cwd(path)}...")
    device: torch.device = state.device
    model = load_for_inference(path, device)
    assert isinstance(model, DetectionModel)  # one file, so no ensemble
    LOG.info(model.info())
    return evaluate(
        model,
        task.loaders.val,
        task.data.names,
        EvalConfig(
            iou_thres=FINAL_IOU[task.data.is_coco],
            single_cls=task.opt.single_cls,
            half=state.half,
            verbose=True,
        ),
        OutputOptions(
            task.run.folder,
            plots=not task.opt.noplots,
            save_json=task.data.is_coco,
            json_stem=path.stem,
            coco_root=task.data.root if task.data.is_coco else None,
        ),
        device=device,
        loss=state.loss,
        callbacks=task.callbacks,
    )
