"""Export a model to several formats, check each file, and report."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from models.yolo import DetectionModel
from utils.base.errors import DataError, YoloError
from utils.base.formats import FORMATS, size_of
from utils.base.log import LOG, color
from utils.base.paths import typed
from utils.base.script import one_line
from utils.export import exporter
from utils.export.export_options import ExportOptions
from utils.export.verify import OpenFile, verify


@dataclass(frozen=True)
class Report:
    """How one export went."""

    format: str
    file: Path
    seconds: float = 0.0
    difference: float | None = None  # the largest to PyTorch
    note: str = ""
    error: str = ""

    @property
    def row(self) -> str:
        """The line of the table."""
        if self.error:
            return f"{self.format:>12}  {self.file.name}: {self.error}"
        size = f"{size_of(self.file) / 1e6:.1f} MB"
        difference = "-" if self.difference is None else f"{self.difference:.1e}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.format:>12}{size:>12}{self.seconds:>9.1f} s{difference:>14}  {self.file}{note}"


def file_of(name: str, weights: Path, options: ExportOptions) -> Path:
    """Where a format's file or folder will be: beside the weights."""
    ending = FORMATS[name].ending(options.precision)
    if name == "coreml" and options.mlmodel:
        ending = ".mlmodel"
    return weights.with_name(weights.stem + ending)


def export_all(
    formats: Sequence[str],
    weights: Path,
    model: DetectionModel,
    images: Tensor,
    options: ExportOptions,
    open_file: OpenFile,
) -> list[Report]:
    """Write `model` beside `weights` in every format; a failure does not stop the others."""
    return [export_one(name, weights, model, images, options, open_file) for name in formats]


def export_one(
    name: str,
    weights: Path,
    model: DetectionModel,
    images: Tensor,
    options: ExportOptions,
    open_file: OpenFile,
) -> Report:
    """Write one format and check it."""
    report = Report(name, file_of(name, weights, options))
    LOG.info(f"{FORMATS[name].title}: writing {report.file}")
    try:
        start = time.perf_counter()
        exporter(name)(model, images, report.file, options)
        report = replace(report, seconds=time.perf_counter() - start)
        return _verified(report, model, images, options, open_file)
    except YoloError as error:
        failure = one_line(error)
    except Exception as error:  # converters raise anything, and the next format may still work
        failure = f"{type(error).__name__}: {one_line(error)}"
        if options.verbose:
            LOG.error(traceback.format_exc())
    LOG.error(f"{name} export failure: {failure}")
    return replace(report, error=failure)


def _verified(
    report: Report, model: DetectionModel, images: Tensor, options: ExportOptions, open_file: OpenFile
) -> Report:
    """The report with the difference; a file that is wrong loses its name, so that nobody takes it."""
    try:
        kind = FORMATS[report.format]
        difference, note = verify(kind, report.file, model, images, options, open_file)
    except ValueError as error:
        failed = report.file.with_name(f"{report.file.name}.failed")
        if failed.is_dir():
            shutil.rmtree(failed)
        report.file.replace(failed)
        raise DataError(f"{error}; kept as {failed.name}") from error
    return replace(report, difference=difference, note=note)


def print_table(reports: Sequence[Report]) -> None:
    """Print format, size, time, largest difference to PyTorch and file of every export."""
    LOG.info(f"\n{'format':>12}{'size':>12}{'time':>11}{'difference':>14}  file")
    for report in reports:
        LOG.info(report.row)
    made = [report.file for report in reports if not report.error]
    if made:
        LOG.info(
            f"\nResults saved to {color(str(made[0].resolve().parent), 'bold')}\n"
            f"Detect:      {typed('detect.py')} --weights {made[0]}\n"
            f"Validate:    {typed('val.py')} --weights {made[0]}\n"
            f"Look at it:  https://netron.app"
        )
