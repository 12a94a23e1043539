"""Evaluate a segmentation model: precision, recall and mAP of boxes and of masks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from utils.ops.metrics import match_overlaps
from utils.tasks.segment.masks import (
    blocks,
    mask_iou,
    mask_overlaps,
    process_mask,
    process_mask_native,
    process_mask_upsample,
    scale_masks,
)
from utils.tasks.segment.polygons import encode_rle, join_rings, polygon_text, ring_fractions
from utils.val.accumulator import IOU_LEVELS, EvalResult
from utils.val.evaluate import Evaluator, Prediction
from utils.val.outputs import PLOTTED_BATCHES, PLOTTED_BOXES, EvalOutputs
from utils.val.runner import Found

if TYPE_CHECKING:
    from utils.data.dataset import Shapes
    from utils.data.loader import Batch

_COLUMNS = ("P", "R", "mAP50", "mAP50-95")
HEADER = ("%22s" + "%11s" * 10) % (
    *("Class", "Images", "Instances", "Box(P", *_COLUMNS[1:3], "mAP50-95)"),
    *("Mask(P", *_COLUMNS[1:3], "mAP50-95)"),
)


@dataclass(frozen=True)
class SegmentResult(EvalResult):
    """Metrics of boxes, in the fields of `EvalResult`, and of masks; losses: box, seg, obj, cls."""

    mask: EvalResult = field(kw_only=True)

    @property
    def metrics(self) -> tuple[float, ...]:
        """(P, R, mAP50, mAP50-95) of boxes, then of masks."""
        return (*super().metrics, *self.mask.metrics)

    @property
    def filled_maps(self) -> np.ndarray:
        """The sums of the mAP50-95 of boxes and masks, (nc,), which the original reports."""
        total: np.ndarray = super().filled_maps + self.mask.filled_maps
        return total

    @property
    def class_quality(self) -> np.ndarray:
        """The mean of the mAP50-95 of boxes and masks, (nc,)."""
        return self.filled_maps / 2

    def fitness(self) -> float:
        """Return the sum of the fitness of boxes and masks, 0-2."""
        return super().fitness() + self.mask.fitness()

    def class_metrics(self, index: int) -> tuple[float, ...]:
        """Return the metrics of one class that has labels, of boxes and masks."""
        return (*super().class_metrics(index), *self.mask.class_metrics(index))


class SegmentOutputs(EvalOutputs):
    """Files of a validation: as for detection; plots, labels and json contain the masks."""

    @property
    def needs_masks(self) -> bool:
        """Whether the masks of every image are written."""
        return self.labels is not None or self.json is not None

    def masks(self, batch: Batch, index: int, detections: Tensor, masks: Iterable[np.ndarray]) -> None:
        """Add the `detections` (n, 6) of one image and their masks, (H, W) each, in pixels of the image.

        Label lines have the exact polygon: reading it gives the mask back, see `join_rings`.
        """
        path = Path(batch.paths[index])
        lines: list[str] = []
        encoded: list[dict[str, Any]] = []
        for (score, cls), mask in zip(detections[:, 4:6].tolist(), masks, strict=True):
            if self.labels is not None and mask.any():
                text = polygon_text(ring_fractions(join_rings(mask), mask.shape))
                lines.append(f"{cls:g} {text}" + (f" {score:g}" if self.labels.with_confidence else ""))
            if self.json is not None:
                encoded.append(encode_rle(mask))
        if self.labels is not None:
            self.labels.write(path, lines)
        if self.json is not None:
            self.json.add(path, detections, encoded)

    def image(self, batch: Batch, index: int, detections: Tensor, labels: Tensor) -> None:
        if self.plots is not None:
            self.plots.confusion.process_batch(detections, labels)

    def finish(self, result: EvalResult) -> EvalResult:
        assert isinstance(result, SegmentResult)
        if self.plots is not None:
            self.plots.finish({"Box": result.ap, "Mask": result.mask.ap})
        box, mask = self.save_json("bbox", "segm")
        if box is not None:
            result = replace(result, map=box[0], map50=box[1])
        if mask is not None:
            result = replace(result, mask=replace(result.mask, map=mask[0], map50=mask[1]))
        return result


class SegmentEvaluator(Evaluator):
    """Evaluator of boxes, in pixels of the images, and of masks, at the size of the prototypes.

    With `EvalConfig.full_masks` masks are enlarged to the input, and compared there.
    """

    header: str = HEADER
    outputs_class: ClassVar[type[EvalOutputs]] = SegmentOutputs
    losses_count: ClassVar[int] = 4
    measures: ClassVar[int] = 2  # of boxes, of masks

    def read(self, output: Any) -> Prediction:
        """Interpret the output of the model: (decoded, prototypes), and the raw maps of a PyTorch model."""
        decoded, protos, *maps = output
        raw = ([level.float() for level in maps[0]], protos.float()) if maps else None
        return Prediction(decoded.float(), raw, protos.float())

    def result(self) -> SegmentResult:
        """Compute the metrics of all batches."""
        box = super().result()
        mask = self.accumulators[1].result(self.names)
        return SegmentResult(**vars(box), mask=mask)

    def _add(self, batch: Batch, found: Found, index: int, rows: Tensor, labels: Tensor) -> None:
        super()._add(batch, found, index, rows, labels)
        correct = self._match_masks(batch, found, index, rows[:, 5], labels[:, 0])
        self.accumulators[1].add(rows, labels, correct)
        outputs, shapes = self.outputs, batch.shapes[index]
        assert isinstance(outputs, SegmentOutputs)
        if outputs.needs_masks and shapes is not None:
            protos, detections = found.protos[index], found.images[index]
            masks = _masks_on_image(protos, detections, batch.images.shape[2:], shapes)
            outputs.masks(batch, index, rows, masks)

    def _match_masks(
        self, batch: Batch, found: Found, index: int, classes: Tensor, true_classes: Tensor
    ) -> Tensor:
        """Return which masks of an image are correct at each IoU level, (n, 10) bool on the CPU."""
        protos, detections = found.protos[index], found.images[index]
        truth = batch.masks_of(index).to(protos.device)
        input_hw = batch.images.shape[2:]
        if not self.config.full_masks:
            truth = _resized(truth, protos.shape[1:])
            overlap = mask_overlaps(truth, protos, detections[:, 6:], detections, input_hw)
            return match_overlaps(overlap.T.cpu(), classes, true_classes, IOU_LEVELS, self.config.match)
        truth = _resized(truth, input_hw).flatten(1)
        overlaps = [truth.new_zeros((len(truth), 0), dtype=torch.float32)]
        for part in blocks(len(detections), truth.shape[1]):
            masks = process_mask_upsample(protos, detections[part, 6:], detections[part], input_hw)
            overlaps.append(mask_iou(truth, masks.flatten(1)))
        overlap = torch.cat(overlaps, 1)
        return match_overlaps(overlap.T.cpu(), classes, true_classes, IOU_LEVELS, self.config.match)

    def _draw(self, index: int, batch: Batch, found: Found) -> None:
        plots, input_hw = self.outputs.plots, batch.images.shape[2:]
        if plots is None or index >= PLOTTED_BATCHES:
            return
        truth = [batch.masks_of(image).numpy() for image in range(len(batch.paths))]
        best = [rows[:PLOTTED_BOXES] for rows in found.images]
        masks = [
            process_mask(each, rows[:, 6:], rows, input_hw).cpu().numpy()
            for each, rows in zip(found.protos, best, strict=True)
        ]
        plots.batch(index, batch, found.images, truth, masks)


def _masks_on_image(
    protos: Tensor, detections: Tensor, input_hw: Sequence[int], shapes: Shapes
) -> Iterator[np.ndarray]:
    """Yield the masks of one image, (H, W) uint8 at its size, made in blocks."""
    image_hw, (_, pad_xy) = shapes
    for part in blocks(len(detections), max(input_hw[0] * input_hw[1], image_hw[0] * image_hw[1])):
        masks = process_mask_native(protos, detections[part, 6:], detections[part], input_hw)
        yield from scale_masks(masks, image_hw, pad_xy)


def _resized(masks: Tensor, size: Any) -> Tensor:
    """Return masks (m, h, w) bool at another size."""
    if masks.shape[1:] == size or not len(masks):
        return masks if len(masks) else masks.new_zeros((0, *size))
    return functional.interpolate(masks[None].float(), size, mode="bilinear")[0] > 0.5
