"""Turn checkpoints into files that other runtimes read, and check each against PyTorch.

    python export.py --weights yolov5s.pt --include torchscript onnx

From Python: `files = export.run(weights="yolov5s.pt", include=["onnx"])`.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.log import LOG, set_up_console
from utils.base.script import main, print_args
from utils.export.options import options_from, parse_options

if TYPE_CHECKING:
    from utils.export.run import Report


def run(**keywords: Any) -> list[Path]:
    """Export from Python: keywords are the flags with underscores; return the files that are right."""
    set_up_console()
    return [report.file for report in export(options_from(keywords)) if not report.error]


def export(opt: Namespace) -> list[Report]:
    """Export every file of `--weights` to every format of `--include`.

    Raises:
        ConfigError, DataError: the weights or the device cannot be used.
    """
    from utils.export.run import print_table

    reports = [report for file in opt.weights for report in export_file(file, opt)]
    print_table(reports)
    return reports


def export_file(file: str, opt: Namespace) -> list[Report]:
    """Export one checkpoint; the files stand beside it."""
    from models.backends import load_backend
    from models.weights import load_for_inference, locate_weights
    from models.yolo import DetectionModel
    from utils.base.device import select_device
    from utils.data.letterbox import check_img_size
    from utils.export.check import example_images
    from utils.export.options import ExportOptions
    from utils.export.run import export_all

    device = select_device(opt.device)
    if opt.half and device.type != "cuda":
        raise ConfigError(f"--half needs a GPU, the device is {device.type}: leave --half out")
    path = locate_weights(file)
    model = load_for_inference(path, device)
    assert isinstance(model, DetectionModel)
    model.eval().head.export = True
    stride = int(model.stride.max())
    height, width = check_img_size(opt.imgsz, stride=stride)
    images = example_images((height, width), opt.batch_size).to(device)
    if opt.half:
        model, images = model.half(), images.half()
    told = ("half", "dynamic", "simplify", "optimize", "verbose", "opset")
    options = ExportOptions(stride, dict(model.names), **{key: getattr(opt, key) for key in told})
    LOG.info(f"PyTorch: {path}, {len(model.names)} classes, example batch {tuple(images.shape)}")
    return export_all(
        opt.include, path, model, images, options, lambda made: load_backend(made, device, half=opt.half)
    )


def command_line() -> int:
    """Parse before anything heavy is imported, then export; 1 if an export failed or differs."""
    opt = parse_options()
    print_args("export", opt)
    return int(any(report.error for report in export(opt)))


if __name__ == "__main__":
    main(command_line)
