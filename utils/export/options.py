"""The flags of export.py, and what an exporter is told; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS, known_format
from utils.base.log import LOG
from utils.base.script import parser

if TYPE_CHECKING:
    from torch import Tensor, nn

OLDEST_OPSET, NEWEST_OPSET = 11, 20  # what PyTorch's TorchScript-based exporter writes


# Flags that mean something to some formats only.
_MEANT_FOR = {
    "optimize": ("torchscript",),
    "dynamic": ("onnx", "engine", "saved_model"),
    "simplify": ("onnx", "engine"),
    "keras": ("saved_model",),
    "int8": ("coreml", "tflite", "edgetpu", "openvino", "tfjs"),
    "per_tensor": ("tflite",),
    "cache": ("engine",),
    "mlmodel": ("coreml",),
    "nms": ("coreml", "saved_model", "pb", "tflite", "edgetpu", "tfjs"),
    "agnostic_nms": ("saved_model", "pb", "tflite", "edgetpu", "tfjs"),
}


@dataclass(frozen=True)
class ExportOptions:
    """What the formats need beside the model and an example batch."""

    stride: int
    names: dict[int, str] = field(default_factory=dict)
    half: bool = False
    dynamic: bool = False
    simplify: bool = False
    optimize: bool = False
    verbose: bool = False
    opset: int = 17


if TYPE_CHECKING:
    # model, images (B, 3, H, W), file to write, options -> None
    Exporter = Callable[[nn.Module, Tensor, Path, ExportOptions], None]


def build_parser() -> argparse.ArgumentParser:
    """The parser of export.py, its flags grouped by the formats that they are for."""
    parse = parser("Turn checkpoints into files that other runtimes read.", prog="export.py")
    _all_formats(parse.add_argument_group("all formats"))
    group = parse.add_argument_group("torchscript")
    group.add_argument("--optimize", action="store_true", help="for mobile devices; CPU only")
    group = parse.add_argument_group("onnx")
    group.add_argument("--dynamic", action="store_true", help="free batch size, height and width")
    group.add_argument("--simplify", action="store_true", help="simplify the graph with onnxslim")
    group.add_argument("--opset", type=int, default=17, help="ONNX opset version")
    _later_formats(parse.add_argument_group("formats that are not ready yet"))
    return parse


def _all_formats(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weights", nargs="+", default=["yolov5s.pt"], help="checkpoints, exported in turn")
    group.add_argument("--include", nargs="+", default=["torchscript"], help=f"of {', '.join(FORMATS)}")
    group.add_argument(
        "--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640, 640], help="height and width"
    )
    group.add_argument("--batch-size", type=int, default=1, help="pictures in a batch")
    group.add_argument("--device", default="cpu", help="cpu, mps, or a GPU such as 0")
    group.add_argument("--half", action="store_true", help="half precision; needs a GPU, not with --dynamic")
    group.add_argument("--inplace", action="store_true", help="accepted; the decoded boxes are the same")
    group.add_argument("--verbose", action="store_true", help="let the exporters talk")
    group.add_argument("--data", default="data/coco128.yaml", help="data set for int8 calibration")


def _later_formats(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--keras", action="store_true", help="saved_model: Keras layers")
    group.add_argument("--int8", action="store_true", help="coreml, tflite, openvino: 8-bit integers")
    group.add_argument("--per-tensor", action="store_true", help="tflite: one scale a tensor")
    group.add_argument("--cache", default="", help="engine: timing cache file")
    group.add_argument("--workspace", type=int, default=4, help="engine: GB of work memory")
    group.add_argument("--mlmodel", action="store_true", help="coreml: the old file format")
    group.add_argument("--nms", action="store_true", help="tensorflow, coreml: suppression in the model")
    group.add_argument("--agnostic-nms", action="store_true", help="tensorflow: suppression across classes")
    group.add_argument("--topk-per-class", type=int, default=100, help="tensorflow: boxes kept of a class")
    group.add_argument("--topk-all", type=int, default=100, help="tensorflow: boxes kept in all")
    group.add_argument("--iou-thres", type=float, default=0.45, help="tensorflow, coreml: overlap")
    group.add_argument("--conf-thres", type=float, default=0.25, help="tensorflow, coreml: confidence")


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line and check what can be checked without PyTorch."""
    return check_options(build_parser().parse_args(argv))


def options_from(keywords: dict[str, Any]) -> argparse.Namespace:
    """Options from keywords, which are the flags with underscores.

    Raises:
        ConfigError: a keyword that is no flag.
    """
    opt = build_parser().parse_args([])
    for key in keywords:
        if not hasattr(opt, key):
            near = difflib.get_close_matches(key, vars(opt), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"export.run has no option {key}{hint}")
    return check_options(argparse.Namespace(**{**vars(opt), **keywords}))


def check_options(opt: argparse.Namespace) -> argparse.Namespace:
    """Bring values into their final form.

    Raises:
        ConfigError: an unknown format, a size that is none, or flags that exclude each other.
    """
    opt.weights = [
        str(file) for file in ([opt.weights] if isinstance(opt.weights, str | Path) else opt.weights)
    ]
    opt.include = [opt.include] if isinstance(opt.include, str) else opt.include
    opt.include = list(dict.fromkeys(known_format(name).name for name in opt.include))
    sizes = [opt.imgsz] if isinstance(opt.imgsz, int) else list(opt.imgsz)
    if len(sizes) not in (1, 2) or min(sizes) < 1:
        raise ConfigError(f"--imgsz {' '.join(map(str, sizes))}: one size, or height and width, is needed")
    opt.imgsz = sizes * 2 if len(sizes) == 1 else sizes
    if opt.batch_size < 1:
        raise ConfigError(f"--batch-size {opt.batch_size}: at least 1 is needed")
    if opt.half and opt.dynamic:
        raise ConfigError("--half and --dynamic exclude each other: choose one")
    if opt.half and opt.device == "cpu" and opt.include != ["coreml"]:
        raise ConfigError("--half needs a GPU: add --device 0, or leave --half out")
    if opt.optimize and opt.device != "cpu":
        raise ConfigError(f"--optimize is for the CPU: leave out --device {opt.device}")
    if not OLDEST_OPSET <= opt.opset <= NEWEST_OPSET:
        raise ConfigError(f"--opset {opt.opset}: {OLDEST_OPSET} to {NEWEST_OPSET} can be written")
    for flag, formats in _MEANT_FOR.items():
        if getattr(opt, flag) and not set(formats) & set(opt.include):
            names = ", ".join(formats)
            LOG.warning(f"--{flag.replace('_', '-')} changes nothing here: it is for {names}")
    return opt
