"""Export a checkpoint, verify each file against PyTorch, and report; example and calibration images."""

from __future__ import annotations

import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from torch import Tensor

from models.user_blocks import load_blocks
from models.weights import load_for_inference
from models.yolo import BaseModel, DetectionModel
from utils.base.device import select_device
from utils.base.errors import ConfigError, DataError, YoloError, one_line
from utils.base.formats import EXPORTS, YOLOV5, size_of
from utils.base.log import LOG, color
from utils.base.options import options_from
from utils.base.paths import ROOT, command_for
from utils.base.processes import run_in_subprocess, subprocess_main
from utils.data.images import IMAGE_SUFFIXES, read_image
from utils.data.letterbox import prepare_image
from utils.export import export_function
from utils.export.export_options import ExportOptions, supports
from utils.export.export_settings import ExportSettings
from utils.export.verify import verify
from utils.tasks.task import get_task

_FULL = 2**20  # bytes that are left


@dataclass(frozen=True)
class ExportReport:
    """Result of one export."""

    format: str
    file: Path
    seconds: float = 0.0
    difference: float | None = None  # largest difference from PyTorch's output; None if not computed
    note: str = ""
    error: str = ""
    task: str = "detect"  # of the model

    @property
    def row(self) -> str:
        """The line of the table."""
        if self.error:
            return f"{self.format:>12}  {self.file.name}: {self.error}"
        size = f"{size_of(self.file) / 1e6:.1f} MB"
        difference = "-" if self.difference is None else f"{self.difference:.1e}"
        note = f" ({self.note})" if self.note else ""
        return f"{self.format:>12}{size:>12}{self.seconds:>9.1f} s{difference:>14}  {self.file}{note}"


PrepareImage = Callable[[np.ndarray, tuple[int, int]], Tensor]  # image (H, W, 3), size -> (1, 3, h, w)


class Exporter:
    """Exporter of one checkpoint to the formats of `--include`; the files are written next to it.

    Args:
        weights: the checkpoint.
        options: options of export.py, except `weights`.

    Raises:
        ConfigError, DataError: the checkpoint, the device or the calibration dataset cannot be used.
    """

    def __init__(self, weights: Path, options: ExportOptions) -> None:
        self.weights, self.options = weights, options
        load_blocks(options.blocks)
        self.device = select_device(options.device)
        model = load_for_inference(weights, self.device)
        assert isinstance(model, BaseModel)  # one file, so no ensemble
        task = get_task(model.task)
        if options.nms and task.name == "classify":
            raise ConfigError(f"--nms: {weights} is a {task.noun}, which has no boxes; leave it out")
        model.eval()
        if isinstance(model, DetectionModel):
            model.head.export = True
        self.model = model
        self.stride = int(model.stride.max())
        size_hw = task.export_size(options.imgsz, self.stride)
        self.images = example_images(size_hw, options.batch_size, prepare=task.prepare_image).to(self.device)
        self.calibration_images = None
        if options.int8 and any(supports(name, "int8") for name in options.include):
            files = task.training_images(options.data)
            if not files:
                raise ConfigError(
                    f"--data {options.data}: has no training images in folders or lists, on which --int8 is "
                    "calibrated; shards cannot be used"
                )
            self.calibration_images = load_calibration_images(
                files, size_hw, options.calibration, options.batch_size, task.prepare_image
            )

    def export(self) -> list[ExportReport]:
        """Write and verify every format; a failure does not stop the others."""
        shape = tuple(self.images.shape)
        LOG.info(f"PyTorch: {self.weights}, {len(self.model.names)} classes, example batch {shape}")
        return [
            self.export_in_subprocess(name) if EXPORTS[name].subprocess else self.export_format(name)
            for name in self.options.include
        ]

    def export_format(self, name: str) -> ExportReport:
        """Write and verify one format in this process."""
        settings = self._settings(name)
        report = ExportReport(name, output_path(name, self.weights, settings), task=self.model.task)
        LOG.info(f"{EXPORTS[name].title}: writing {report.file}")
        try:
            start = time.perf_counter()
            export_function(name)(self.model, self.images, report.file, settings)
            report = replace(report, seconds=time.perf_counter() - start)
            return self._verify(report, settings)
        except YoloError as error:
            return _failed(report, one_line(error))
        except Exception as error:  # converters raise any exception, and the next format may still work
            if self.options.verbose:
                LOG.error(traceback.format_exc())
            return _failed(report, f"{type(error).__name__}: {one_line(error)}")

    def export_in_subprocess(self, name: str) -> ExportReport:
        """Write and verify one format in a subprocess, whose converter may crash."""
        LOG.info(f"{EXPORTS[name].title}: writing in a subprocess")
        options = self.options.for_format(name)
        file = output_path(name, self.weights, options)
        task = {**options.as_dict(), "weights": [str(self.weights)]}
        try:
            result = run_in_subprocess("utils.export.export_job", task, quiet=not options.verbose)
        except DataError as error:
            return _failed(ExportReport(name, file), f"the converter {error}")
        report = ExportReport(**{**result, "file": file})
        return _failed(report, report.error) if report.error else report

    def _settings(self, name: str) -> ExportSettings:
        options = self.options.for_format(name).as_dict() | {"weights": [str(self.weights)]}
        if name == YOLOV5.name:
            options["half"] = True  # as all files of YOLOv5
        return ExportSettings(
            **options,
            stride=self.stride,
            task=self.model.task,
            coefficients=self.model.head.linear if isinstance(self.model, DetectionModel) else 0,
            names=dict(self.model.names),
            calibration_images=self.calibration_images,
        )

    def _verify(self, report: ExportReport, settings: ExportSettings) -> ExportReport:
        """Return the report with the difference; rename a file whose output is wrong."""
        try:
            file_format = EXPORTS[report.format]
            difference, note = verify(file_format, report.file, self.model, self.images, settings)
        except ValueError as error:
            failed = report.file.with_name(f"{report.file.name}.failed")
            if failed.is_dir():
                shutil.rmtree(failed)
            report.file.replace(failed)
            raise DataError(f"{error}; kept as {failed.name}") from error
        return replace(report, difference=difference, note=note)


def _failed(report: ExportReport, error: str) -> ExportReport:
    with suppress(OSError):  # converters written in C++ do not say so
        if shutil.disk_usage(report.file.parent).free < _FULL:
            error = f"{error}; the disk is full"
    LOG.error(f"{report.format} export failure: {error}")
    return replace(report, error=error)


def output_path(name: str, weights: Path, options: ExportOptions) -> Path:
    """Return the path of the file or folder that a format is written to, next to the weights."""
    ending = EXPORTS[name].ending(options.precision)
    if name == "coreml" and options.mlmodel:
        ending = ".mlmodel"
    return weights.with_name(weights.stem + ending)


def print_table(reports: Sequence[ExportReport], options: ExportOptions) -> None:
    """Print format, size, time, largest difference from PyTorch and file of every export, and commands."""
    LOG.info(f"\n{'format':>12}{'size':>12}{'time':>11}{'difference':>14}  file")
    for report in reports:
        LOG.info(report.row)
    written = [report for report in reports if not report.error]
    files = [report.file for report in written]
    if files:
        _, val, predict = get_task(written[0].task).scripts
        size = f" --imgsz {max(options.imgsz)}" if "imgsz" in options.given else ""
        LOG.info(
            f"\nResults saved to {color(str(files[0].resolve().parent), 'bold')}\n"
            f"Predict:     {command_for(predict)} --weights {files[0]}{size}\n"
            f"Validate:    {command_for(val)} --weights {files[0]}{size}\n"
            f"Visualize:   https://netron.app"
        )


def _export_in_this_process(task: dict[str, Any]) -> dict[str, Any]:
    """Run the task of `Exporter.export_in_subprocess`: options with one checkpoint and one format."""
    options = options_from(ExportOptions, task)
    report = Exporter(Path(options.weights[0]), options).export_format(options.include[0])
    return {**asdict(report), "file": str(report.file)}


def example_images(
    size_hw: tuple[int, int],
    batch_size: int,
    folder: Path = ROOT / "data" / "images",
    prepare: PrepareImage = prepare_image,
) -> Tensor:
    """Return a batch (B, 3, H, W) for a model: the first image of `folder`, or a pattern if it has none."""
    files = sorted(file for file in folder.glob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
    return _batch(read_image(files[0]) if files else _pattern(), size_hw, batch_size, prepare)


def load_calibration_images(
    files: Sequence[Path],
    size_hw: tuple[int, int],
    count: int,
    batch_size: int = 1,
    prepare: PrepareImage = prepare_image,
) -> Callable[[], Sequence[Tensor]]:
    """Return a function that loads evenly spaced images of a dataset, when it is first called.

    Args:
        files: the training images.
        size_hw: input size of the model.
        count: maximum number of images.
        batch_size: number of copies of each image, for a network with a fixed batch size.
        prepare: converts an image for the model.

    Returns:
        A function that returns batches (B, 3, H, W). It raises DataError if no image can be read.
    """

    @cache
    def images() -> Sequence[Tensor]:
        indices = np.unique(np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int))
        batches = []
        for index in indices:
            try:
                batches.append(_batch(read_image(files[int(index)]), size_hw, batch_size, prepare))
            except (DataError, OSError) as error:
                LOG.warning(f"not used for calibration: {error}")
        if not batches:
            raise DataError(f"--data: none of the {len(files)} training images can be read")
        LOG.info(f"calibrating with {len(batches)} of {len(files)} training images")
        return batches

    return images


def _batch(image: np.ndarray, size_hw: tuple[int, int], batch_size: int, prepare: PrepareImage) -> Tensor:
    """Prepare an image (H, W, 3) and repeat it: a contiguous batch (B, 3, H, W)."""
    return prepare(image, size_hw).contiguous().repeat(batch_size, 1, 1, 1)


def _pattern() -> np.ndarray:
    """Draw an image (480, 640, 3) of circles on a colour gradient."""
    y, x = np.mgrid[:480, :640]
    image = np.stack((x * 255 // 639, y * 255 // 479, (x + y) * 255 // 1118), -1).astype(np.uint8)
    for index in range(6):
        cv2.circle(image, (60 + 100 * index, 240), 20 + 8 * index, (250 - 40 * index, 30, 40 * index), -1)
    return image


if __name__ == "__main__":
    subprocess_main(_export_in_this_process)
