"""Verify an exported file: run it as detect.py does, and compare its output with PyTorch's."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models.backends import load_backend
from models.yolo import BaseModel
from utils.base.formats import Format
from utils.export.export_settings import ExportSettings
from utils.ops.boxes import box_iou
from utils.ops.nms import non_max_suppression

# FP32 runtimes differ from PyTorch in the order of sums only (measured: yolov5n at 320 in ONNX Runtime,
# 2e-6). Wrong anchors, strides or weights change the output by a hundredth and more.
TOLERANCE = 1e-4
TOLERANCE_HALF = 2e-2  # FP16 keeps 11 bits of every value
ROUNDING_FACTOR = 10  # an ill-conditioned model may differ by this multiple of its own rounding error

# INT8 models are compared by their detections.
INT8_CONF, INT8_NMS_IOU = 0.5, 0.45  # PyTorch's detections
INT8_MATCH_IOU = 0.6  # two detections of the same object
INT8_MIN_RECALL = 0.8
INT8_BATCHES = 8  # largest number of calibration batches to compare on

NO_LIMIT = 10_000  # detections per image, more than any limit in a file

Runtime = Callable[[Tensor], Any]  # images (B, 3, H, W) -> decoded output (B, N, 5 + nc), see `Backend`


@dataclass(frozen=True)
class Difference:
    """Largest differences of two decoded outputs."""

    boxes: float  # of centres and sizes, as a fraction of the image's longer side or of the box
    scores: float  # of objectness and class scores
    masks: float = 0.0  # of coefficients and prototypes, or logits, as a fraction of the largest of them

    @property
    def largest(self) -> float:
        """The largest of them."""
        return max(self.boxes, self.scores, self.masks)


def can_run(file_format: Format) -> bool:
    """Return whether this machine can run files of a format."""
    if file_format.name == "coreml":
        return sys.platform == "darwin"
    return file_format.runs and file_format.name != "edgetpu"


def verify(
    file_format: Format, file: Path, model: BaseModel, images: Tensor, settings: ExportSettings
) -> tuple[float | None, str]:
    """Compare a file's output with that of `model` on the example batch (B, 3, H, W).

    Returns:
        The largest difference, None if it was not computed; and a note, which may be empty.

    Raises:
        ValueError: the file cannot be run, or the difference is too large.
    """
    if not can_run(file_format):
        return None, "not run: no runtime for it here"
    half = settings.half and file_format.name == "torchscript"  # other formats convert images by themselves
    runtime = load_backend(file, images.device, names=dict(model.names), half=half)
    if settings.int8:
        return _verify_int8(runtime, model, images, settings)
    largest = max(_verify_batch(runtime, model, batch, settings) for batch in _batches(images, settings))
    return largest, ""


def _verify_batch(runtime: Runtime, model: BaseModel, images: Tensor, settings: ExportSettings) -> float:
    """Return the largest difference on a batch."""
    with torch.inference_mode():
        # Channels last, as detect.py's images are: some runtimes ignore strides.
        channels_last = images.contiguous(memory_format=torch.channels_last)
        (expected, protos), (actual, actual_protos) = (
            _outputs(model(images)),
            _outputs(runtime(channels_last)),
        )
    compare = compare_detections if settings.nms else _comparison(settings.task)
    difference = compare(expected, actual, images, settings)
    if protos is not None:
        masks = compare_protos(protos, actual_protos)
        difference = replace(difference, masks=max(difference.masks, masks))
    if difference.largest > TOLERANCE:
        limit = TOLERANCE_HALF if settings.half else _rounding_tolerance(model, images)
        if difference.largest > limit:
            raise ValueError(f"the output differs from PyTorch by {difference.largest:.1e}")
    return difference.largest


def _verify_int8(
    runtime: Runtime, model: BaseModel, images: Tensor, settings: ExportSettings
) -> tuple[float | None, str]:
    """Check that an INT8 file finds the same objects; its boxes and scores all differ a little."""
    batches = settings.calibration_images() if settings.calibration_images else [images]
    step = -(-len(batches) // INT8_BATCHES)  # evenly spaced: images of class folders are sorted by class
    recalls, largest = [], 0.0
    for batch in batches[::step]:
        batch = batch.to(images.device)
        with torch.inference_mode():
            (expected, _), (actual, _) = _outputs(model(batch)), _outputs(runtime(batch))
        if not settings.nms:
            compare = _comparison(settings.task)
            largest = max(largest, compare(expected, actual, batch, settings).largest)
        recalls.append(_agreement(expected, actual, settings))
    recall = sum(recalls) / len(recalls)
    found = "classes" if settings.task == "classify" else "boxes"
    if recall < INT8_MIN_RECALL:
        raise ValueError(
            f"the INT8 model finds {recall:.0%} of PyTorch's {found}, less than {INT8_MIN_RECALL:.0%}; "
            "calibrate with images like those it will run on (--data)"
        )
    return None if settings.nms else largest, f"finds {recall:.0%} of the {found}"


def _agreement(expected: Tensor, actual: Tensor, settings: ExportSettings) -> float:
    """Return the fraction of PyTorch's boxes, or of its classes, that the file finds too."""
    if settings.task == "classify":
        same = expected.cpu().argmax(1) == actual.cpu().argmax(1)
        return float(same.float().mean())
    return detection_recall(expected, actual, settings.coefficients)


def _batches(images: Tensor, settings: ExportSettings) -> list[Tensor]:
    """Return the example batch; with `--dynamic` also one of another size and number of images."""
    if not settings.dynamic:
        return [images]
    stride, width = settings.stride, images.shape[3]
    narrower = max(stride, (width // 2) // stride * stride)
    return [images, torch.cat((images, images))[..., :narrower].contiguous()]


def _outputs(output: Any) -> tuple[Tensor, Tensor | None]:
    """Return decoded boxes, and the mask prototypes of a segmentation model."""
    if isinstance(output, Tensor):
        return output, None
    return output[0], output[1] if len(output) > 1 else None


def _comparison(task: str) -> Callable[..., Difference]:
    return compare_logits if task == "classify" else compare_outputs


def compare_logits(
    expected: Tensor, actual: Tensor, images: Tensor, settings: ExportSettings | None = None
) -> Difference:
    """Compare logits (B, nc): as probabilities, and as a fraction of the largest logit.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    expected, actual = _comparable(expected, actual)
    probabilities = (expected.softmax(1) - actual.softmax(1)).abs().max()
    return Difference(0.0, float(probabilities), _relative(expected, actual))


def _comparable(expected: Tensor, actual: Tensor) -> tuple[Tensor, Tensor]:
    """Return both outputs in FP64.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    expected, actual = expected.detach().cpu().double(), actual.detach().cpu().double()
    if expected.shape != actual.shape:
        raise ValueError(f"output has shape {tuple(actual.shape)} instead of {tuple(expected.shape)}")
    if not torch.isfinite(actual).all():
        raise ValueError("output has values that are not finite")
    return expected, actual


def compare_protos(expected: Tensor, actual: Tensor | None) -> float:
    """Return the largest difference of prototypes (B, nm, h, w), as a fraction of the largest value.

    Raises:
        ValueError: the shapes differ, or there are no prototypes.
    """
    if actual is None or actual.shape != expected.shape:
        found = "none" if actual is None else tuple(actual.shape)
        raise ValueError(f"mask prototypes have shape {found} instead of {tuple(expected.shape)}")
    return _relative(expected.detach().cpu().double(), actual.detach().cpu().double())


def _relative(expected: Tensor, actual: Tensor) -> float:
    """Return the largest difference as a fraction of the largest value, or of 1; 0 of nothing."""
    if not expected.numel():
        return 0.0
    return float((expected - actual).abs().max() / expected.abs().max().clamp(min=1))


def compare_outputs(
    expected: Tensor, actual: Tensor, images: Tensor, settings: ExportSettings | None = None
) -> Difference:
    """Compare decoded outputs (B, N, 5 + nc + nm) for `images` (B, 3, H, W), row by row.

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    expected, actual = _comparable(expected, actual)
    gap = (expected - actual).abs()
    size = expected[..., :4].abs().clamp(min=max(images.shape[2:]))
    end = expected.shape[2] - (0 if settings is None else settings.coefficients)
    masks = _relative(expected[..., end:], actual[..., end:])
    return Difference(float((gap[..., :4] / size).max()), float(gap[..., 4:end].max()), masks)


def compare_detections(
    expected: Tensor, actual: Tensor, images: Tensor, settings: ExportSettings
) -> Difference:
    """Compare decoded outputs (B, N, 5 + nc) for `images` (B, 3, H, W) after NMS, box by box.

    Raises:
        ValueError: the number of boxes or a class differs.
    """
    s, boxes, scores, masks = settings, 0.0, 0.0, 0.0
    conf = s.conf_thres
    pairs = _detections(expected, actual, conf, conf, s.iou_thres, s.agnostic_nms, s.coefficients)
    for index, (expected_rows, actual_rows) in enumerate(pairs):
        expected_rows = _top_k(expected_rows, s)
        if len(expected_rows) != len(actual_rows):
            raise ValueError(f"image {index}: {len(actual_rows)} boxes instead of {len(expected_rows)}")
        if len(expected_rows):
            nearest = (expected_rows[:, None, :6] - actual_rows[None, :, :6]).abs().sum(-1).argmin(1)
            gap = (expected_rows - actual_rows[nearest]).abs()
            if gap[:, 5].any():
                raise ValueError(f"image {index}: boxes of other classes")
            boxes = max(boxes, float(gap[:, :4].max()) / max(images.shape[2:]))
            scores = max(scores, float(gap[:, 4].max()))
            masks = max(masks, _relative(expected_rows[:, 6:], actual_rows[nearest, 6:]))
    return Difference(boxes, scores, masks)


def detection_recall(expected: Tensor, actual: Tensor, coefficients: int = 0) -> float:
    """Return the fraction of PyTorch's confident boxes that the file finds too, from 0 to 1.

    An untrained model has no confident boxes: then return 1 less the mean difference of the scores.
    """
    total, matched = 0, 0
    pairs = _detections(expected, actual, INT8_CONF, INT8_CONF / 2, INT8_NMS_IOU, coefficients=coefficients)
    for expected_rows, actual_rows in pairs:
        total += len(expected_rows)
        if len(expected_rows) and len(actual_rows):
            overlaps = box_iou(expected_rows[:, :4], actual_rows[:, :4]) > INT8_MATCH_IOU
            same_class = expected_rows[:, None, 5] == actual_rows[None, :, 5]
            matched += int((overlaps & same_class).any(1).sum())
    if total:
        return matched / total
    end = expected.shape[2] - coefficients
    return 1 - float((expected[..., 4:end].cpu() - actual[..., 4:end].cpu()).abs().mean())


def rounding_error(model: BaseModel, images: Tensor) -> Difference:
    """Compare a model's FP32 output with that of its copy in FP64."""
    with torch.inference_mode():
        exact, _ = _outputs(deepcopy(model).double()(images.double()))
        return _comparison(model.task)(exact, _outputs(model(images))[0], images)


def _rounding_tolerance(model: BaseModel, images: Tensor) -> float:
    """Return the tolerance for an ill-conditioned model, such as an untrained one."""
    return min(ROUNDING_FACTOR * rounding_error(model, images).largest, TOLERANCE_HALF)


def _detections(
    expected: Tensor,
    actual: Tensor,
    expected_conf: float,
    actual_conf: float,
    iou: float,
    agnostic: bool = False,
    coefficients: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the detections (n, 6 + nm) of both outputs, image by image."""
    expected_rows, actual_rows = (
        non_max_suppression(
            output.detach().cpu().float(), conf, iou, agnostic=agnostic, max_det=NO_LIMIT, nm=coefficients
        )
        for output, conf in ((expected, expected_conf), (actual, actual_conf))
    )
    return zip(expected_rows, actual_rows, strict=True)


def _top_k(detections: Tensor, settings: ExportSettings) -> Tensor:
    """Return those of detections (n, 6), best first, that a file with NMS keeps."""
    if settings.agnostic_nms:
        return detections[: min(settings.topk_per_class, settings.topk_all)]
    better_of_class = (detections[:, None, 5] == detections[None, :, 5]).tril(-1)
    return detections[better_of_class.sum(1) < settings.topk_per_class][: settings.topk_all]
