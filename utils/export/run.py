"""Export a model to several formats, check each file, and report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from models.yolo import DetectionModel
from utils.base.errors import YoloError
from utils.base.formats import FORMATS
from utils.base.log import LOG, color
from utils.base.script import one_line
from utils.export import exporter
from utils.export.check import FLOORS, TOLERANCE, TOLERANCE_HALF, Difference, compare, rounding_error
from utils.export.options import ExportOptions

OpenFile = Callable[[Path], Callable[[Tensor], Tensor]]  # a file -> what runs it


@dataclass(frozen=True)
class Report:
    """How one export went."""

    format: str
    file: Path
    seconds: float = 0.0
    difference: Difference | None = None  # to PyTorch
    error: str = ""

    @property
    def row(self) -> str:
        """The line of the table."""
        if self.error:
            return f"{self.format:>12}  {self.file.name}: {self.error}"
        largest = self.difference.largest if self.difference else float("nan")
        size = self.file.stat().st_size / 1e6
        return f"{self.format:>12}{size:>9.1f} MB{self.seconds:>9.1f} s{largest:>14.1e}  {self.file}"


def export_all(
    formats: Sequence[str],
    weights: Path,
    model: DetectionModel,
    images: Tensor,
    options: ExportOptions,
    open_file: OpenFile,
) -> list[Report]:
    """Write `model` beside `weights` in every format; a failure does not stop the others."""
    return [_export_one(name, weights, model, images, options, open_file) for name in formats]


def print_table(reports: Sequence[Report]) -> None:
    """Print format, size, time, largest difference to PyTorch and file of every export."""
    LOG.info(f"\n{'format':>12}{'size':>12}{'time':>11}{'difference':>14}  file")
    for report in reports:
        LOG.info(report.row)
    made = [report.file for report in reports if not report.error]
    if made:
        LOG.info(
            f"\nResults saved to {color(str(made[0].resolve().parent), 'bold')}\n"
            f"Detect:      python detect.py --weights {made[0]}\n"
            f"Validate:    python val.py --weights {made[0]}\n"
            f"Look at it:  https://netron.app"
        )


def _export_one(
    name: str,
    weights: Path,
    model: DetectionModel,
    images: Tensor,
    options: ExportOptions,
    open_file: OpenFile,
) -> Report:
    report = Report(name, weights.with_name(weights.stem + FORMATS[name].suffix))
    make = exporter(name)
    if make is None:
        LOG.error(f"{FORMATS[name].title}: --include {name} is not ready yet")
        return replace(report, error="not ready yet")
    LOG.info(f"{FORMATS[name].title}: writing {report.file}")
    try:
        start = time.perf_counter()
        make(model, images, report.file, options)
        report = replace(report, seconds=time.perf_counter() - start)
        return _checked(report, model, images, options, open_file)
    except YoloError as error:
        failure = one_line(error)
    except Exception as error:  # converters raise anything, and the next format may still work
        failure = f"{type(error).__name__}: {one_line(error)}"
        if options.verbose:
            LOG.error(traceback.format_exc())
    LOG.error(f"{name} export failure: {failure}")
    return replace(report, error=failure)


def _checked(
    report: Report, model: DetectionModel, images: Tensor, options: ExportOptions, open_file: OpenFile
) -> Report:
    """Run the file as detect.py would, and compare its boxes with the model's."""
    runtime = open_file(report.file)
    for trial in _trials(report.format, images, options):
        with torch.inference_mode():
            difference = compare(model(trial)[0], runtime(trial), trial)
        if difference.largest > TOLERANCE:
            own = TOLERANCE_HALF if options.half else FLOORS * rounding_error(model, trial).largest
            allowed = min(own, TOLERANCE_HALF)
            if difference.largest > allowed:
                raise ValueError(f"{report.file.name} differs from PyTorch by {difference.largest:.1e}")
        if report.difference is None or difference.largest > report.difference.largest:
            report = replace(report, difference=difference)
    return report


def _trials(name: str, images: Tensor, options: ExportOptions) -> list[Tensor]:
    """The example batch; for an export of free sizes another number and size as well."""
    if not (options.dynamic and name == "onnx"):
        return [images]
    stride, width = options.stride, images.shape[3]
    narrower = max(stride, (width // 2) // stride * stride)
    return [images, torch.cat((images, images))[..., :narrower].contiguous()]
