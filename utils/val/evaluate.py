"""Measure a detector on labelled pictures; `val.py` and training both do it here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from utils.base.log import LOG
from utils.base.progress import Bar
from utils.loggers.callbacks import Callbacks
from utils.val.outputs import Outputs, Wanted
from utils.val.result import HEADER, EvalResult, print_rows
from utils.val.session import Forward, Gather, Loss, Predictor, Search, Session

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec
    from utils.data.loader import Batch
    from utils.ops.metrics import MatchRule

FEW_CLASSES = 50  # below, val.py prints a row for each class unasked


def evaluate(
    model: Predictor,
    loader: Iterable[Batch],
    names: dict[int, str],
    *,
    device: torch.device,
    half: bool = False,
    conf_thres: float = 0.001,
    iou_thres: float = 0.6,
    max_det: int = 300,
    single_cls: bool = False,
    augment: bool = False,
    loss: Loss | None = None,
    save_dir: Path | None = None,
    plots: bool = False,
    save_txt: bool = False,
    save_hybrid: bool = False,
    save_conf: bool = False,
    save_json: bool = False,
    json_stem: str = "model",
    data: DataSpec | None = None,
    verbose: bool = False,
    match: MatchRule = "legacy",
    callbacks: Callbacks | None = None,
    gather: Gather | None = None,
) -> EvalResult:
    """Run `model` over `loader` and compare what it finds with the labels.

    Args:
        model: gives decoded boxes in pixels of its input, and maps too when `loss` is given.
        loader: batches of uint8 RGB pictures, targets, and how each picture was letterboxed.
        names: the classes of the labels.
        device: where `model` is.
        half: half precision, on CUDA only. An `nn.Module` keeps its float32 weights (autocast).
        conf_thres: the mAP is right only if this is near zero.
        iou_thres: overlap above which suppression drops the weaker box.
        max_det: at most so many detections a picture.
        single_cls: whatever class is found counts as class 0.
        augment: test-time augmentation; it yields no losses.
        loss: given by training; its items are averaged over the batches.
        save_dir: folder of everything that is written.
        plots: draw three batches, the curves and the confusion matrix.
        save_txt: write labels/*.txt.
        save_hybrid: write labels/*.txt in which the true labels join the detections.
        save_conf: add the confidence to those files.
        save_json: write `<json_stem>_predictions.json`; if `data` is COCO, score it.
        json_stem: name of that file.
        data: the data set, to recognise COCO.
        verbose: print a row for each class; without `loss`, few classes are printed unasked.
        match: who gets a label that several detections overlap, see `utils.ops.metrics`.
        callbacks: a listener, told of batches and pictures.
        gather: brings together what processes found that have every so many-th batch each.

    Raises:
        ConfigError: the model has another number of classes than `names`.
    """
    search = Search(conf_thres, iou_thres, max_det, single_cls, augment, save_hybrid, match)
    wanted = Wanted(save_dir, plots, save_txt, save_hybrid, save_conf, save_json, json_stem, data)
    listener = callbacks or Callbacks()
    listener.on_val_start()
    forward = Forward(model, device, half, augment)
    with closing(Outputs(wanted, names)) as outputs, _eval_mode(model), torch.inference_mode():
        session = Session(forward, names, search, loss, outputs, listener)
        for index, batch in enumerate(Bar(loader, HEADER)):
            session.step(index, batch)
        if gather is not None:
            session.join(gather)
        result = session.result()
        per_class = verbose or (loss is None and len(names) < FEW_CLASSES)
        print_rows(result, per_class and len(names) > 1)
        _warn(result, standalone=loss is None)
        result = outputs.finish(result, session.confusion)
    listener.on_val_end(result)
    return result


def _warn(result: EvalResult, standalone: bool) -> None:
    """Say what the figures do not tell."""
    if not result.instances:
        LOG.warning("no labels found in this set: precision, recall and mAP are not measured but zero")
    if standalone and result.ap is not None and result.ap.stray:
        LOG.warning(
            f"{result.ap.stray} detections are of classes without a single label here, "
            "and count in no figure (those above the confidence of P and R)"
        )


@contextmanager
def _eval_mode(model: Predictor) -> Iterator[None]:
    """Put a module in evaluation mode, and back when done."""
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
