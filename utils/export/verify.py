"""Run an exported file as detect.py would, and compare it with PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.base.formats import Format
from utils.base.paths import ROOT
from utils.data.images import IMAGE_SUFFIXES, read_image
from utils.data.letterbox import letterbox
from utils.export.export_options import ExportOptions
from utils.ops.iou import box_iou
from utils.ops.nms import non_max_suppression

# Float32 runtimes differ from PyTorch in the order of sums only (measured: yolov5n at 320 in ONNX Runtime,
# 2e-6). Wrong anchors, strides or weights are off by a hundredth and more.
TOLERANCE = 1e-4
FLOORS = 10  # times its own rounding error a badly conditioned model (untrained, say) may differ
TOLERANCE_HALF = 2e-2  # half precision keeps 11 bits of every value
SURE, GOOD_OVERLAP = 0.5, 0.6  # score and IoU for comparisons with 8-bit models ...
LEAST_SHARE = 0.8  # ... of whose boxes this part has to be found again
MANY = 10_000  # boxes of an image, more than any limit


@dataclass(frozen=True)
class Difference:
    """Largest differences of two decoded outputs."""

    boxes: float  # of centres and sizes, as a fraction of the image's longer side or of the box
    scores: float  # of objectness and class scores

    @property
    def largest(self) -> float:
        """The larger of the two."""
        return max(self.boxes, self.scores)


def compare(expected: Tensor, found: Tensor, images: Tensor) -> Difference:
    """Compare decoded outputs (B, N, 5 + nc) for `images` (B, 3, H, W).

    Raises:
        ValueError: the shapes differ, or a value is not finite.
    """
    expected, found = expected.detach().cpu().double(), found.detach().cpu().double()
    if expected.shape != found.shape:
        raise ValueError(f"output has shape {tuple(found.shape)} instead of {tuple(expected.shape)}")
    if not torch.isfinite(found).all():
        raise ValueError("output holds values that are not finite")
    gap = (expected - found).abs()
    size = expected[..., :4].abs().clamp(min=max(images.shape[2:]))
    return Difference(float((gap[..., :4] / size).max()), float(gap[..., 4:].max()))


def compare_found(expected: Tensor, found: Tensor, images: Tensor, options: ExportOptions) -> Difference:
    """Compare what is left of decoded outputs (B, N, 5 + nc) after suppression, box by box.

    Raises:
        ValueError: not the same boxes.
    """
    o, difference = options, Difference(0.0, 0.0)
    pairs = _detections(expected, found, o.conf_thres, o.iou_thres, agnostic=o.agnostic_nms)
    for index, (ours, theirs) in enumerate(pairs):
        ours = _best(ours, o)
        if len(ours) != len(theirs):
            raise ValueError(f"image {index}: {len(theirs)} boxes instead of {len(ours)}")
        if len(ours):
            nearest = (ours[:, None] - theirs[None]).abs().sum(-1).argmin(1)
            gap = (ours - theirs[nearest]).abs()
            if gap[:, 5].any():
                raise ValueError(f"image {index}: boxes of other classes")
            boxes, scores = float(gap[:, :4].max()) / max(images.shape[2:]), float(gap[:, 4].max())
            difference = Difference(max(difference.boxes, boxes), max(difference.scores, scores))
    return difference


def _best(rows: Tensor, o: ExportOptions) -> Tensor:
    """Of rows (n, 6), best first, as many as a file keeps."""
    if o.agnostic_nms:
        return rows[: min(o.topk_per_class, o.topk_all)]
    same = (rows[:, None, 5] == rows[None, :, 5]).tril(-1)  # those of its class that are better
    return rows[same.sum(1) < o.topk_per_class][: o.topk_all]


def share_found(expected: Tensor, found: Tensor) -> float:
    """Of the boxes that PyTorch is sure of, the part that the file finds as well, from 0 to 1.

    Of an untrained model, which is sure of nothing, how near the scores are: 1 less their mean difference.
    """
    sure, known = 0, 0
    for ours, theirs in _detections(expected, found, SURE, 0.45, weaker=SURE / 2):
        sure += len(ours)
        if len(ours) and len(theirs):
            overlaps = box_iou(ours[:, :4], theirs[:, :4]) > GOOD_OVERLAP
            same = ours[:, None, 5] == theirs[None, :, 5]
            known += int((overlaps & same).any(1).sum())
    if sure:
        return known / sure
    return 1 - float((expected[..., 4:].cpu() - found[..., 4:].cpu()).abs().mean())


def _detections(
    expected: Tensor,
    found: Tensor,
    conf: float,
    iou: float,
    weaker: float | None = None,
    agnostic: bool = False,
) -> Iterator[tuple[Tensor, Tensor]]:
    least = conf if weaker is None else weaker
    ours = non_max_suppression(expected.detach().cpu().float(), conf, iou, agnostic=agnostic, max_det=MANY)
    theirs = non_max_suppression(found.detach().cpu().float(), least, iou, agnostic=agnostic, max_det=MANY)
    return zip(ours, theirs, strict=True)


def rounding_error(model: DetectionModel, images: Tensor) -> Difference:
    """What float32 costs the model itself: compare it with its copy in float64."""
    with torch.inference_mode():
        exact = deepcopy(model).double()(images.double())[0]
        return compare(exact, model(images)[0], images)


def example_images(
    imgsz: tuple[int, int], batch_size: int, folder: Path = ROOT / "data" / "images"
) -> Tensor:
    """A batch (B, 3, H, W) in 0-1 of an image from `folder`, or of a drawn pattern if it has none."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    image = read_image(files[0]) if files else _pattern()
    boxed = letterbox(image, imgsz, auto=False)[0]
    rgb = np.ascontiguousarray(boxed[..., ::-1].transpose(2, 0, 1))
    return (torch.from_numpy(rgb).float() / 255).repeat(batch_size, 1, 1, 1)


def _pattern() -> np.ndarray:
    """An image (480, 640, 3) of circles on a slope of colours."""
    y, x = np.mgrid[:480, :640]
    image = np.stack((x * 255 // 639, y * 255 // 479, (x + y) * 255 // 1118), -1).astype(np.uint8)
    for index in range(6):
        cv2.circle(image, (60 + 100 * index, 240), 20 + 8 * index, (250 - 40 * index, 30, 40 * index), -1)
    return image


OpenFile = Callable[[Path], Callable[[Tensor], Tensor]]  # a file -> what runs it
INT8_IMAGES = 8  # of the calibration's, on which the boxes of an 8-bit model are looked for


def can_run(kind: Format) -> bool:
    """Whether files of this kind run on this machine."""
    return kind.runs and kind.name != "edgetpu" and (kind.name != "coreml" or sys.platform == "darwin")


def verify(
    kind: Format,
    file: Path,
    model: DetectionModel,
    images: Tensor,
    options: ExportOptions,
    open_file: OpenFile,
) -> tuple[float | None, str]:
    """The largest difference to PyTorch, and a word on it where there is one.

    Raises:
        ValueError: it is larger than it may be.
    """
    if not can_run(kind):
        return None, "not run: no runtime for it here"
    runtime = open_file(file)
    if options.int8:
        return _verify_int8(runtime, model, images, options)
    largest = 0.0
    for trial in _trials(kind.name, images, options):
        with torch.inference_mode():
            # detect.py's images have their channels last, too: a runtime may stumble over that
            expected, found = model(trial)[0], runtime(trial.contiguous(memory_format=torch.channels_last))
        if options.nms:
            difference = compare_found(expected, found, trial, options)
        else:
            difference = compare(expected, found, trial)
        if difference.largest > TOLERANCE:
            own = TOLERANCE_HALF if options.half else _own_error(model, trial)
            if difference.largest > own:
                raise ValueError(f"{file.name} differs from PyTorch by {difference.largest:.1e}")
        largest = max(largest, difference.largest)
    return largest, ""


def _verify_int8(
    runtime: Callable[[Tensor], Tensor], model: DetectionModel, images: Tensor, options: ExportOptions
) -> tuple[float | None, str]:
    """8 bits move every box and score a little: what counts is whether the same objects are found."""
    batches = options.calibration_images()[:INT8_IMAGES] if options.calibration_images else [images]
    shares, largest = [], 0.0
    for batch in batches:
        trial = batch.to(images.device)
        with torch.inference_mode():
            expected, found = model(trial)[0], runtime(trial)
        if not options.nms:
            largest = max(largest, compare(expected, found, trial).largest)
        shares.append(share_found(expected, found))
    share = sum(shares) / len(shares)
    if share < LEAST_SHARE:
        raise ValueError(
            f"the 8-bit model finds {share:.0%} of PyTorch's boxes, fewer than {LEAST_SHARE:.0%}; "
            "calibrate with images like those that it is for (--data)"
        )
    return None if options.nms else largest, f"finds {share:.0%} of the boxes"


def _own_error(model: DetectionModel, trial: Tensor) -> float:
    """What a badly conditioned model may differ by: some times its own rounding error."""
    return min(FLOORS * rounding_error(model, trial).largest, TOLERANCE_HALF)


def _trials(name: str, images: Tensor, options: ExportOptions) -> list[Tensor]:
    """The example batch; for an export of free sizes another number and size as well."""
    if not (options.dynamic and name in ("onnx", "openvino", "engine")):
        return [images]
    stride, width = options.stride, images.shape[3]
    narrower = max(stride, (width // 2) // stride * stride)
    return [images, torch.cat((images, images))[..., :narrower].contiguous()]
