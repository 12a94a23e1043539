"""Evaluate a detector on labelled images; `val.py` and training both use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.progress import Bar
from utils.base.timing import Stopwatch
from utils.loggers.callbacks import Callbacks
from utils.ops.boxes import scale_boxes, xywh2xyxy
from utils.ops.metrics import ConfusionMatrix
from utils.ops.nms import non_max_suppression
from utils.val.accumulator import HEADER, EvalResult, MatchAccumulator, print_rows
from utils.val.outputs import EvalOutputs, OutputOptions

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec
    from utils.data.loader import Batch
    from utils.ops.metrics import MatchRule


Predictor = Callable[..., Any]  # images (B, 3, H, W) -> decoded (B, N, 5 + nc), or (decoded, maps)
Gather = Callable[[Any], list[Any]]
Loss = Callable[[list[Tensor], Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class EvalConfig:
    """How to look for objects; the fields are the arguments of `evaluate`."""

    conf_thres: float
    iou_thres: float
    max_det: int
    single_cls: bool
    augment: bool
    hybrid: bool  # the labels join the boxes before suppression
    match: MatchRule


class ModelRunner:
    """Prepare images and run the model on them, in the precision asked for."""

    def __init__(self, model: Predictor, device: torch.device, half: bool, augment: bool) -> None:
        half = half and device.type == "cuda"
        self.model = model
        self.device = device
        self.autocast = half and isinstance(model, nn.Module)
        self.dtype = torch.float16 if half and not self.autocast else torch.float32
        self.options = {"augment": True} if augment else {}
        self.layout = torch.channels_last if device.type in ("cpu", "cuda") else torch.contiguous_format

    def prepare(self, images: Tensor) -> Tensor:
        """uint8 0-255 -> floating 0-1 on the model's device."""
        on_device = images.to(self.device, non_blocking=True)
        return on_device.to(self.dtype, memory_format=self.layout).div_(255)  # a copy: bytes went in

    def __call__(self, images: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """Return decoded boxes in float32, and the maps if the model gives them."""
        with torch.autocast(self.device.type, enabled=self.autocast):
            output = self.model(images, **self.options)
        decoded, maps = output if isinstance(output, tuple | list) else (output, None)
        return decoded.float(), maps


class Evaluation:
    """The state of the pass."""

    def __init__(
        self,
        forward: ModelRunner,
        names: dict[int, str],
        search: EvalConfig,
        loss: Loss | None,
        outputs: EvalOutputs,
        callbacks: Callbacks,
    ) -> None:
        self.forward = forward
        self.names = names
        self.search = search
        self.loss = loss
        self.outputs = outputs
        self.callbacks = callbacks
        confusion = ConfusionMatrix(len(names)) if outputs.plots else None
        self.accumulator = MatchAccumulator(len(names), search.match, confusion)
        self.clocks = [Stopwatch(forward.device) for _ in range(3)]
        self.losses = torch.zeros(3, device=forward.device)
        self.batches = 0

    @property
    def confusion(self) -> Any:
        """The confusion matrix (nc + 1, nc + 1), if images are drawn."""
        return self.accumulator.confusion.matrix if self.accumulator.confusion is not None else None

    def step(self, index: int, batch: Batch) -> None:
        """Infer, suppress and match one batch."""
        self.callbacks.on_val_batch_start(index)
        prepare, infer, suppress = self.clocks
        with prepare:
            images = self.forward.prepare(batch.images)
            targets = batch.targets.to(self.forward.device)
        with infer:
            decoded, maps = self.forward(images)
        self._check_classes(decoded)
        self._add_losses(maps, targets)
        with suppress:
            detections = self._suppress(decoded, targets, images.shape[2:])
        self._match(batch, detections)
        self.accumulator.batches.append(len(batch.paths))
        self.outputs.batch(index, batch.images, batch.targets, batch.paths, detections)
        self.callbacks.on_val_batch_end(index, batch.images, batch.targets, batch.paths)
        self.batches += 1

    def join(self, gather: Gather) -> None:
        """Add what the other processes found, in the order in which one process would have found it."""
        parts = gather((self.accumulator, self.losses.cpu()))
        if len(parts) > 1:
            self.accumulator = MatchAccumulator.joined([accumulator for accumulator, _ in parts])
            self.losses = torch.stack([losses for _, losses in parts]).sum(0).to(self.losses.device)
            self.batches = len(self.accumulator.batches)

    def result(self) -> EvalResult:
        """Turn all that was counted into figures."""
        seen = max(self.accumulator.seen, 1)
        prepare, infer, suppress = (clock.total / seen * 1e3 for clock in self.clocks)
        box, obj, cls = (self.losses / max(self.batches, 1)).tolist()
        ap = self.accumulator.average_precision(self.names)
        figures: dict[str, float] = {}
        if ap is not None:
            figures = {
                "mp": float(ap.p.mean()),
                "mr": float(ap.r.mean()),
                "map50": float(ap.ap[:, 0].mean()),
                "map": float(ap.ap.mean()),
            }
        return EvalResult(
            names=self.names,
            seen=self.accumulator.seen,
            label_counts=self.accumulator.label_counts(),
            maps=self.accumulator.maps(ap),
            losses=(box, obj, cls),
            speeds=(prepare, infer, suppress),
            ap=ap,
            matches=self.accumulator.matches(),
            **figures,
        )

    def _check_classes(self, decoded: Tensor) -> None:
        found = decoded.shape[2] - 5
        if self.batches == 0 and found != len(self.names) and not self.search.single_cls:
            raise ConfigError(
                f"the model has {found} classes, the dataset {len(self.names)}: they do not belong together"
            )

    def _add_losses(self, maps: list[Tensor] | None, targets: Tensor) -> None:
        if self.loss is not None and maps is not None:
            self.losses += self.loss([level.float() for level in maps], targets)[1]

    def _suppress(self, decoded: Tensor, targets: Tensor, input_hw: torch.Size) -> list[Tensor]:
        return non_max_suppression(
            decoded,
            self.search.conf_thres,
            self.search.iou_thres,
            multi_label=True,
            agnostic=self.search.single_cls,
            max_det=self.search.max_det,
            labels=_pixel_labels(targets, len(decoded), input_hw) if self.search.hybrid else (),
        )

    def _match(self, batch: Batch, detections: list[Tensor]) -> None:
        """Carry detections and labels to the pixels of their images, and compare them there."""
        input_hw = batch.images.shape[2:]
        found = torch.cat(detections).cpu()  # one transfer a batch; a copy, so `detections` stay as they are
        if self.search.single_cls:
            found[:, 5] = 0
        labels = _pixel_labels(batch.targets, len(detections), input_hw)
        for path, shape, rows, true in zip(
            batch.paths, batch.shapes, found.split([len(rows) for rows in detections]), labels, strict=True
        ):
            assert shape is not None, "a loader for validation records how it letterboxed"
            image_hw, ratio_pad = shape
            scale_boxes(input_hw, rows, image_hw, ratio_pad)
            boxes = scale_boxes(input_hw, xywh2xyxy(true[:, 1:]), image_hw, ratio_pad)
            self.accumulator.add(rows, torch.cat((true[:, :1], boxes), 1))
            self.outputs.image(Path(path), rows, image_hw)
            self.callbacks.on_val_image_end(rows, path)


def _pixel_labels(targets: Tensor, batch_size: int, input_hw: torch.Size) -> list[Tensor]:
    """targets (T, 6) -> per image (m, 5): class, then xywh in pixels of the input."""
    height, width = input_hw
    rows = targets[:, 1:] * targets.new_tensor([1, width, height, width, height])
    return [rows[targets[:, 0] == index] for index in range(batch_size)]


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
        loader: batches of uint8 RGB images, targets, and how each image was letterboxed.
        names: the classes of the labels.
        device: where `model` is.
        half: half precision, on CUDA only. An `nn.Module` keeps its float32 weights (autocast).
        conf_thres: the mAP is right only if this is near zero.
        iou_thres: overlap above which suppression drops the weaker box.
        max_det: at most so many detections an image.
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
        data: the dataset, to recognise COCO.
        verbose: print a row for each class; without `loss`, few classes are printed unasked.
        match: who gets a label that several detections overlap, see `utils.ops.metrics`.
        callbacks: a callback, told of batches and images.
        gather: brings together what processes found that have every so many-th batch each.

    Raises:
        ConfigError: the model has another number of classes than `names`.
    """
    search = EvalConfig(conf_thres, iou_thres, max_det, single_cls, augment, save_hybrid, match)
    options = OutputOptions(save_dir, plots, save_txt, save_hybrid, save_conf, save_json, json_stem, data)
    callbacks = callbacks or Callbacks()
    callbacks.on_val_start()
    forward = ModelRunner(model, device, half, augment)
    with closing(EvalOutputs(options, names)) as outputs, _eval_mode(model), torch.inference_mode():
        session = Evaluation(forward, names, search, loss, outputs, callbacks)
        for index, batch in enumerate(Bar(loader, HEADER)):
            session.step(index, batch)
        if gather is not None:
            session.join(gather)
        result = session.result()
        per_class = verbose or (loss is None and len(names) < FEW_CLASSES)
        print_rows(result, per_class and len(names) > 1)
        _warn(result, standalone=loss is None)
        result = outputs.finish(result, session.confusion)
    callbacks.on_val_end(result)
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
