"""Run an exported file as detect.py would, and say how far it is from PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.base.formats import Format
from utils.export import check
from utils.export.export_options import ExportOptions

OpenFile = Callable[[Path], Callable[[Tensor], Tensor]]  # a file -> what runs it
INT8_PICTURES = 8  # of the calibration's, on which the boxes of an 8-bit model are looked for


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
            # detect.py's pictures have their channels last, too: a runtime may stumble over that
            expected, found = model(trial)[0], runtime(trial.contiguous(memory_format=torch.channels_last))
        if options.nms:
            difference = check.compare_found(expected, found, trial, options)
        else:
            difference = check.compare(expected, found, trial)
        if difference.largest > check.TOLERANCE:
            own = check.TOLERANCE_HALF if options.half else _own_error(model, trial)
            if difference.largest > own:
                raise ValueError(f"{file.name} differs from PyTorch by {difference.largest:.1e}")
        largest = max(largest, difference.largest)
    return largest, ""


def _verify_int8(
    runtime: Callable[[Tensor], Tensor], model: DetectionModel, images: Tensor, options: ExportOptions
) -> tuple[float | None, str]:
    """8 bits move every box and score a little: what counts is whether the same objects are found."""
    pictures = options.pictures()[:INT8_PICTURES] if options.pictures else [images]
    shares, largest = [], 0.0
    for picture in pictures:
        trial = picture.to(images.device)
        with torch.inference_mode():
            expected, found = model(trial)[0], runtime(trial)
        if not options.nms:
            largest = max(largest, check.compare(expected, found, trial).largest)
        shares.append(check.share_found(expected, found))
    share = sum(shares) / len(shares)
    if share < check.LEAST_SHARE:
        raise ValueError(
            f"the 8-bit model finds {share:.0%} of PyTorch's boxes, fewer than {check.LEAST_SHARE:.0%}; "
            "calibrate with pictures like those that it is for (--data)"
        )
    return None if options.nms else largest, f"finds {share:.0%} of the boxes"


def _own_error(model: DetectionModel, trial: Tensor) -> float:
    """What a badly conditioned model may differ by: some times its own rounding error."""
    return min(check.FLOORS * check.rounding_error(model, trial).largest, check.TOLERANCE_HALF)


def _trials(name: str, images: Tensor, options: ExportOptions) -> list[Tensor]:
    """The example batch; for an export of free sizes another number and size as well."""
    if not (options.dynamic and name in ("onnx", "openvino", "engine")):
        return [images]
    stride, width = options.stride, images.shape[3]
    narrower = max(stride, (width // 2) // stride * stride)
    return [images, torch.cat((images, images))[..., :narrower].contiguous()]
