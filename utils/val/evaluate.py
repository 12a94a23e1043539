"""Evaluate a detector on labelled images; `val.py` and training both use it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.log import Bar
from utils.base.timing import Stopwatch
from utils.loggers.callbacks import Callbacks
from utils.ops.boxes import scale_boxes, xywh2xyxy
from utils.ops.nms import non_max_suppression
from utils.val.accumulator import HEADER, EvalResult, MatchAccumulator
from utils.val.outputs import EvalOutputs, OutputOptions
from utils.val.runner import Found, ModelRunner, Predictor, predict_batches
from utils.val.val_options import METRIC_CONF

if TYPE_CHECKING:
    from utils.data.loader import Batch
    from utils.ops.metrics import MatchRule

Gather = Callable[[Any], list[Any]]
Loss = Callable[..., tuple[Tensor, Tensor]]  # raw output, labels of the batch -> loss, items

FEW_CLASSES = 50  # below this, a validation outside training logs a row for each class by default


@dataclass(frozen=True)
class EvalConfig:
    """Settings of an evaluation."""

    conf_thres: float = METRIC_CONF
    iou_thres: float = 0.6  # of NMS
    max_det: int = 300  # per image
    single_cls: bool = False  # all detections count as class 0
    augment: bool = False  # test-time augmentation, which gives no losses
    half: bool = False  # FP16, on CUDA only; an `nn.Module` keeps its float32 weights (autocast)
    hybrid: bool = False  # the true labels join the detections before NMS
    match: MatchRule = "legacy"  # see `match_predictions`
    full_masks: bool = False  # compare masks at the size of the input, not of the prototypes
    verbose: bool | None = None  # log a row for each class; None: unless they are many, or in training
    one_by_one: bool = (
        False  # give each batch all cores of a CPU, to time it; by default parts run side by side
    )


def evaluate(
    model: Predictor,
    loader: Iterable[Batch],
    names: dict[int, str],
    config: EvalConfig | None = None,
    outputs: OutputOptions | None = None,
    *,
    device: torch.device,
    loss: Loss | None = None,
    callbacks: Callbacks | None = None,
    gather: Gather | None = None,
    evaluator: type[Evaluator] | None = None,
) -> Any:
    """Run `model` over `loader` and compare its detections with the labels.

    Args:
        model: returns decoded boxes in pixels of its input, and the raw maps too if `loss` is given.
        loader: batches of uint8 RGB images, targets, and how each image was letterboxed.
        names: classes of the labels.
        config: thresholds and other settings; by default those of val.py.
        outputs: files to write; by default none.
        device: device of `model`.
        loss: training loss, whose items are averaged over the batches.
        callbacks: called for each batch and image.
        gather: collects an object from each of n processes, of which process i has the batches i, i + n, ...
        evaluator: class of the task's evaluator; by default that of detection.

    Returns:
        The `ValResult` of the task: of detection an `EvalResult`.

    Raises:
        ConfigError: the model has another number of classes than `names`.
        WorkerError: a worker of the loader has ended.
    """
    config, callbacks = config or EvalConfig(), callbacks or Callbacks()
    callbacks.on_val_start()
    evaluator = evaluator or Evaluator
    runner = ModelRunner(model, device, config.half, config.augment)
    made = evaluator.outputs_class(outputs, names)
    most = 1 if config.one_by_one else runner.most_workers
    with closing(made) as writers, _eval_mode(model), torch.inference_mode():
        one_pass = evaluator(runner, names, config, writers, loss, callbacks)
        found_in = predict_batches(one_pass.predict, loader, device, most, callbacks.on_val_batch_start)
        with closing(found_in):
            total = len(loader) if isinstance(loader, Sized) else None
            for index, (batch, found) in enumerate(Bar(found_in, one_pass.header, total)):
                one_pass.add(index, batch, found)
                callbacks.on_val_batch_end(index, batch.images, batch.targets, batch.paths)
                del batch, found  # their memory is needed for the next ones
        if gather is not None:
            one_pass.merge(gather)
        result = one_pass.result()
        rows = loss is None and len(names) < FEW_CLASSES if config.verbose is None else config.verbose
        result.log(len(names) > 1 and rows)
        result.warn(standalone=loss is None)
        result = writers.finish(result)
    callbacks.on_val_end(result)
    return result


class Prediction(NamedTuple):
    """The output of a model for a batch, in float32."""

    decoded: Tensor  # (B, N, 5 + nc + nm)
    raw: Any = None  # what the loss takes, if the model returns it
    protos: Tensor | None = None  # (B, nm, h, w) mask prototypes of a segmentation model

    @property
    def coefficients(self) -> int:
        """Mask coefficients of each box, nm."""
        return 0 if self.protos is None else self.protos.shape[1]


class Evaluator:
    """One pass over a dataset: inference, NMS and matching of each batch, then the metrics.

    Evaluators of other tasks are derived from it.
    """

    header: str = HEADER  # of the table
    outputs_class: ClassVar[type[EvalOutputs]] = EvalOutputs
    losses_count: ClassVar[int] = 3
    measures: ClassVar[int] = 1  # accumulators of matches: of boxes

    def __init__(
        self,
        runner: ModelRunner,
        names: dict[int, str],
        config: EvalConfig,
        outputs: EvalOutputs,
        loss: Loss | None,
        callbacks: Callbacks,
    ) -> None:
        self.runner = runner
        self.names = names
        self.config = config
        self.outputs = outputs
        self.loss = loss
        self.callbacks = callbacks
        self.accumulators = [MatchAccumulator(len(names), config.match) for _ in range(self.measures)]
        self.seconds = [0.0, 0.0, 0.0]  # pre-process, inference, NMS
        self.losses = torch.zeros(self.losses_count, device=runner.device)  # sums over the batches

    def predict(self, batch: Batch, part: slice) -> Found:
        """Run the model and NMS on some images of a batch; called by several threads at the same time."""
        clocks = [Stopwatch(self.runner.device) for _ in self.seconds]
        with clocks[0]:
            images = self.runner.prepare(batch.images[part])
        with clocks[1]:
            prediction = self.read(self.runner(images))
        self._check_classes(prediction)
        with clocks[2]:
            labels: Sequence[Tensor] = ()
            if self.config.hybrid:
                targets = batch.targets.to(images.device)
                labels = _pixel_labels(targets, len(batch.paths), images.shape[2:])[part]
            found = self._nms(prediction, labels)
        raw = None if self.loss is None else prediction.raw
        protos = () if prediction.protos is None else [*prediction.protos]
        return Found(found, raw, protos, tuple(clock.total for clock in clocks))

    def add(self, index: int, batch: Batch, found: Found) -> None:
        """Add the losses and matches of a batch, in which `found` was found."""
        self.seconds = [a + b for a, b in zip(self.seconds, found.seconds, strict=True)]
        if self.loss is not None and found.raw is not None:
            self.losses += self.loss(found.raw, *(each.to(self.losses.device) for each in batch.labels))[1]
        self._match(batch, found)
        for accumulator in self.accumulators:
            accumulator.end_batch(batch.paths)
        self._draw(index, batch, found)

    def read(self, output: Any) -> Prediction:
        """Interpret the output of the model: decoded boxes, or (decoded boxes, raw maps)."""
        decoded, maps = output if isinstance(output, tuple | list) else (output, None)
        return Prediction(decoded.float(), None if maps is None else [level.float() for level in maps])

    def merge(self, gather: Gather) -> None:
        """Merge the matches and losses of all processes, as if one process had seen every batch."""
        parts = gather((self.accumulators, self.losses.cpu()))
        if len(parts) > 1:
            by_measure = zip(*(accumulators for accumulators, _ in parts), strict=True)
            self.accumulators = [MatchAccumulator.merged(each) for each in by_measure]
            self.losses = torch.stack([losses for _, losses in parts]).sum(0).to(self.losses.device)

    def result(self) -> EvalResult:
        """Compute the metrics of all batches."""
        return self.accumulators[0].result(self.names, *self.means())

    def means(self) -> tuple[tuple[float, ...], tuple[float, float, float]]:
        """Return the mean losses of the batches, and milliseconds per image: pre-process, inference, NMS."""
        whole = self.accumulators[0]
        seen, batches = max(whole.seen, 1), max(len(whole.batch_sizes), 1)
        preprocess, inference, nms = (seconds / seen * 1e3 for seconds in self.seconds)
        return tuple((self.losses / batches).tolist()), (preprocess, inference, nms)

    def _check_classes(self, prediction: Prediction) -> None:
        nc = prediction.decoded.shape[2] - 5 - prediction.coefficients
        if nc != len(self.names) and not self.config.single_cls:
            raise ConfigError(
                f"the model has {nc} classes, the dataset {len(self.names)}: "
                "evaluate it on the dataset that it was trained on"
            )

    def _nms(self, prediction: Prediction, labels: Sequence[Tensor]) -> list[Tensor]:
        return non_max_suppression(
            prediction.decoded,
            self.config.conf_thres,
            self.config.iou_thres,
            multi_label=True,
            agnostic=self.config.single_cls,
            max_det=self.config.max_det,
            labels=labels,
            nm=prediction.coefficients,
        )

    def _draw(self, index: int, batch: Batch, found: Found) -> None:
        self.outputs.batch(index, batch, found.images)

    def _match(self, batch: Batch, found: Found) -> None:
        """Scale detections and labels to the pixels of their original images, and match them there."""
        detections, input_hw = found.images, batch.images.shape[2:]
        # One transfer per batch, and a copy: `detections` do not change.
        boxes = torch.cat([rows[:, :6] for rows in detections]).cpu()
        if self.config.single_cls:
            boxes[:, 5] = 0
        by_image = boxes.split([len(rows) for rows in detections])
        targets = _pixel_labels(batch.targets, len(detections), input_hw)
        pairs = zip(batch.shapes, by_image, targets, strict=True)
        for index, (shape, rows, true) in enumerate(pairs):
            assert shape is not None, "a loader for validation records how it letterboxed"
            image_hw, ratio_pad = shape
            scale_boxes(input_hw, rows, image_hw, ratio_pad)
            true_boxes = scale_boxes(input_hw, xywh2xyxy(true[:, 1:]), image_hw, ratio_pad)
            self._add(batch, found, index, rows, torch.cat((true[:, :1], true_boxes), 1))
            self.callbacks.on_val_image_end(rows, batch.paths[index])

    def _add(self, batch: Batch, found: Found, index: int, rows: Tensor, labels: Tensor) -> None:
        """Add the `rows` (n, 6) and `labels` (m, 5) of image `index` of a batch, in its own pixels."""
        self.accumulators[0].add(rows, labels)
        self.outputs.image(batch, index, rows, labels)


def _pixel_labels(targets: Tensor, batch_size: int, input_hw: torch.Size) -> list[Tensor]:
    """Split targets (T, 6) by image: (m, 5) class, then xywh in pixels of the input."""
    height, width = input_hw
    rows = targets[:, 1:] * targets.new_tensor([1, width, height, width, height])
    return [rows[targets[:, 0] == index] for index in range(batch_size)]


@contextmanager
def _eval_mode(model: Predictor) -> Iterator[None]:
    """Put a module in evaluation mode, and restore its mode at the end."""
    training = isinstance(model, nn.Module) and model.training
    if isinstance(model, nn.Module):
        model.eval()
    try:
        yield
    finally:
        if isinstance(model, nn.Module):
            model.train(training)
