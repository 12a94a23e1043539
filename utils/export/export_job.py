"""Export checkpoints as the flags say; converters that may crash get a process of their own."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields
from functools import cached_property
from pathlib import Path

from torch import Tensor

from models.backends import load_backend
from models.weights import load_for_inference, locate_weights
from models.yolo import DetectionModel
from utils.base.device import select_device
from utils.base.errors import DataError
from utils.base.formats import FORMATS
from utils.base.log import LOG
from utils.base.processes import ask
from utils.data.letterbox import check_img_size
from utils.export.calibration import calibration_pictures
from utils.export.check import example_images
from utils.export.export_options import ExportOptions, has
from utils.export.run import Report, export_one, file_of


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
        own = {"stride", "names", "pictures"}
        told = {item.name: getattr(opt, item.name) for item in fields(ExportOptions) if item.name not in own}
        height, width = self.images.shape[2:]
        pictures = None
        if opt.int8 and any(has(name, "int8") for name in opt.include):
            pictures = calibration_pictures(opt.data, (height, width), opt.calibration, len(self.images))
        return ExportOptions(int(model.stride.max()), dict(model.names), pictures=pictures, **told)

    def export(self, name: str) -> Report:
        """Write and check one format, in this process."""
        device, half = self.model.head.anchors.device, self.options.half and name == "torchscript"

        def open_file(file: Path):  # type: ignore[no-untyped-def]
            return load_backend(file, device, names=dict(self.model.names), half=half)

        return export_one(
            name, self.weights, self.model, self.images, self.options.for_format(name), open_file
        )

    def export_apart(self, name: str) -> Report:
        """Write and check one format in a process of its own."""
        file = file_of(name, self.weights, self.options.for_format(name))
        task = {**vars(self.opt), "weights": [str(self.weights)], "include": [name]}
        try:
            told = ask("utils.export.child", task, quiet=not self.opt.verbose)
            report = Report(**{**told, "file": file})
        except DataError as error:
            report = Report(name, file, error=f"the converter {error}")
        if report.error:
            LOG.error(f"{name} export failure: {report.error}")
        return report


def export_file(file: str, opt: Namespace) -> list[Report]:
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
        if FORMATS[name].apart:
            LOG.info(f"{FORMATS[name].title}: writing in a process of its own")
            reports.append(job.export_apart(name))
        else:
            reports.append(job.export(name))
    return reports
