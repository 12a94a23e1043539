"""Export checkpoints to the formats asked for, check each file, and report."""

from __future__ import annotations

import shutil
import time
import traceback
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from models.backends import load_backend
from models.weights import load_for_inference, locate_weights
from models.yolo import DetectionModel
from utils.base.device import select_device
from utils.base.errors import DataError, YoloError, one_line
from utils.base.formats import FORMATS, size_of
from utils.base.log import LOG, color
from utils.base.paths import typed
from utils.base.processes import answer, ask
from utils.data.letterbox import check_img_size
from utils.export import exporter
from utils.export.calibration import load_calibration_images
from utils.export.export_options import ExportOptions, has
from utils.export.verify import OpenFile, example_images, verify


@dataclass(frozen=True)
class ExportReport:
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
) -> list[ExportReport]:
    """Write `model` beside `weights` in every format; a failure does not stop the others."""
    return [export_one(name, weights, model, images, options, open_file) for name in formats]


def export_one(
    name: str,
    weights: Path,
    model: DetectionModel,
    images: Tensor,
    options: ExportOptions,
    open_file: OpenFile,
) -> ExportReport:
    """Write one format and check it."""
    report = ExportReport(name, file_of(name, weights, options))
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
    report: ExportReport, model: DetectionModel, images: Tensor, options: ExportOptions, open_file: OpenFile
) -> ExportReport:
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


def print_table(reports: Sequence[ExportReport]) -> None:
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


class Job:
    """One checkpoint, to be exported with the given flags."""

    def __init__(self, file: str, opt: Namespace) -> None:
        self.weights = locate_weights(file)
        self.opt = opt

    @cached_property
    def model(self) -> DetectionModel:
        """The model, ready for exporters."""
        model = load_for_inference(self.weights, select_device(self.opt.device))
        assert isinstance(model, DetectionModel)
        model.eval().head.export = True
        return model

    @cached_property
    def images(self) -> Tensor:
        """The example batch."""
        height, width = check_img_size(self.opt.imgsz, stride=int(self.model.stride.max()))
        images = example_images((height, width), self.opt.batch_size)
        return images.to(self.model.head.anchors.device)

    @cached_property
    def options(self) -> ExportOptions:
        """What exporters are told."""
        opt, model = self.opt, self.model
        own = {"stride", "names", "calibration_images"}
        told = {item.name: getattr(opt, item.name) for item in fields(ExportOptions) if item.name not in own}
        height, width = self.images.shape[2:]
        calibration_images = None
        if opt.int8 and any(has(name, "int8") for name in opt.include):
            calibration_images = load_calibration_images(
                opt.data, (height, width), opt.calibration, len(self.images)
            )
        return ExportOptions(
            int(model.stride.max()), dict(model.names), calibration_images=calibration_images, **told
        )

    def export(self, name: str) -> ExportReport:
        """Write and check one format, in this process."""
        device, half = self.model.head.anchors.device, self.options.half and name == "torchscript"

        def open_file(file: Path):  # type: ignore[no-untyped-def]
            return load_backend(file, device, names=dict(self.model.names), half=half)

        return export_one(
            name, self.weights, self.model, self.images, self.options.for_format(name), open_file
        )

    def export_apart(self, name: str) -> ExportReport:
        """Write and check one format in a process of its own."""
        file = file_of(name, self.weights, self.options.for_format(name))
        task = {**vars(self.opt), "weights": [str(self.weights)], "include": [name]}
        try:
            told = ask("utils.export.export_job", task, quiet=not self.opt.verbose)
            report = ExportReport(**{**told, "file": file})
        except DataError as error:
            report = ExportReport(name, file, error=f"the converter {error}")
        if report.error:
            LOG.error(f"{name} export failure: {report.error}")
        return report


def export_file(file: str, opt: Namespace) -> list[ExportReport]:
    """Export one checkpoint; the files stand beside it.

    Raises:
        ConfigError, DataError: the weights or the device cannot be used.
    """
    job = Job(file, opt)
    _ = job.options  # made now, so that mistakes are told before anything is written
    LOG.info(
        f"PyTorch: {job.weights}, {len(job.model.names)} classes, example batch {tuple(job.images.shape)}"
    )
    reports = []
    for name in opt.include:
        if FORMATS[name].subprocess:
            LOG.info(f"{FORMATS[name].title}: writing in a process of its own")
            reports.append(job.export_apart(name))
        else:
            reports.append(job.export(name))
    return reports


def export(task: dict[str, Any]) -> dict[str, Any]:
    """Export one format; say how it went."""
    opt = Namespace(**task)
    report = asdict(Job(opt.weights[0], opt).export(opt.include[0]))
    return {**report, "file": str(report["file"])}


if __name__ == "__main__":
    answer(export)
