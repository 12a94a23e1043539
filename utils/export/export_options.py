"""The flags of export.py, and what an exporter is told; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS, known_format
from utils.base.log import LOG
from utils.base.script import parser

if TYPE_CHECKING:
    from torch import Tensor

    from models.yolo import DetectionModel

OLDEST_OPSET, NEWEST_OPSET = 11, 20  # what PyTorch's TorchScript-based exporter writes


_SUPPRESS = ("onnx", "openvino", "engine", "saved_model", "pb")
# Flags that mean something to some formats only.
_MEANT_FOR = {
    "optimize": ("torchscript",),
    "dynamic": ("onnx", "openvino", "engine"),
    "simplify": ("onnx", "engine"),
    "half": ("torchscript", "onnx", "openvino", "engine", "coreml", "tflite", "ncnn"),
    "int8": ("onnx", "openvino", "coreml", "tflite", "edgetpu"),
    "per_tensor": ("tflite", "edgetpu"),
    "cache": ("engine",),
    "mlmodel": ("coreml",),
    "nms": _SUPPRESS,
    "agnostic_nms": _SUPPRESS,
}
_NEED_GPU_FOR_HALF = ("torchscript", "engine")


@dataclass(frozen=True)
class ExportOptions:
    """What the formats need beside the model and an example batch."""

    stride: int
    names: dict[int, str] = field(default_factory=dict)
    half: bool = False
    int8: bool = False
    per_tensor: bool = False
    dynamic: bool = False
    simplify: bool = False
    optimize: bool = False
    mlmodel: bool = False
    verbose: bool = False
    opset: int = 17
    workspace: int = 4  # GB
    cache: str = ""
    nms: bool = False
    agnostic_nms: bool = False
    topk_per_class: int = 100
    topk_all: int = 100
    iou_thres: float = 0.45
    conf_thres: float = 0.25
    calibration_images: Callable[[], Sequence[Tensor]] | None = (
        None  # for calibration: (1, 3, H, W) in 0-1 each
    )

    def for_format(self, name: str) -> ExportOptions:
        """The same without what a format does not have; that is mentioned."""
        given = [flag for flag in _MEANT_FOR if getattr(self, flag, False)]
        absent = [flag for flag in given if name not in _MEANT_FOR[flag]]
        if absent:
            flags = ", ".join(f"--{flag.replace('_', '-')}" for flag in absent)
            LOG.warning(f"{name}: written without {flags}, which it does not have")
        without: dict[str, Any] = {flag: "" if flag == "cache" else False for flag in absent}
        return replace(self, **without)

    @property
    def precision(self) -> str:
        """`int8`, `half`, or empty for float32."""
        return "int8" if self.int8 else "half" if self.half else ""

    def metadata(self, images: Tensor | None = None) -> dict[str, Any]:
        """Metadata for a file; with its example batch, the only size that it takes."""
        told: dict[str, Any] = {"stride": self.stride, "names": self.names}
        if self.nms:
            told["nms"] = {"conf": self.conf_thres, "iou": self.iou_thres}
        if images is not None:
            told |= {"imgsz": list(images.shape[2:]), "batch": len(images)}
        return told


if TYPE_CHECKING:
    # model, images (B, 3, H, W), file to write, options -> None
    Exporter = Callable[[DetectionModel, Tensor, Path, ExportOptions], None]


def has(name: str, flag: str) -> bool:
    """Whether a flag means something to a format."""
    return name in _MEANT_FOR[flag]


def build_parser() -> argparse.ArgumentParser:
    """The parser of export.py, its flags grouped by the formats that they are for."""
    parse = parser("Turn checkpoints into files that other runtimes read.", prog="export.py")
    _all_formats(parse.add_argument_group("all formats"))
    group = parse.add_argument_group("precision")
    group.add_argument("--half", action="store_true", help="16-bit floats; not with --dynamic")
    group.add_argument("--int8", action="store_true", help="8-bit integers, where a format has them")
    group.add_argument("--per-tensor", action="store_true", help="tflite: one scale a tensor")
    group.add_argument("--data", default="data/coco128.yaml", help="its images calibrate --int8")
    group.add_argument("--calibration", type=int, default=100, help="how many of its images")
    _suppression(parse.add_argument_group("suppression in the model"))
    _some_formats(parse.add_argument_group("some formats"))
    return parse


def _all_formats(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weights", nargs="+", default=["yolov5s.pt"], help="checkpoints, exported in turn")
    group.add_argument("--include", nargs="+", default=["torchscript"], help=f"of {', '.join(FORMATS)}")
    group.add_argument(
        "--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640, 640], help="height and width"
    )
    group.add_argument("--batch-size", type=int, default=1, help="images in a batch")
    group.add_argument("--device", default="cpu", help="cpu, mps, or a GPU such as 0")
    group.add_argument("--inplace", action="store_true", help="accepted; the decoded boxes are the same")
    group.add_argument("--verbose", action="store_true", help="let the exporters talk")


def _suppression(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--nms", action="store_true", help="suppress in the model; its output is (B, K, 6)")
    group.add_argument("--agnostic-nms", action="store_true", help="boxes of different classes compete, too")
    group.add_argument("--topk-per-class", type=int, default=100, help="boxes kept of a class")
    group.add_argument("--topk-all", type=int, default=100, help="boxes kept in all, K")
    group.add_argument("--iou-thres", type=float, default=0.45, help="overlap that makes two boxes one")
    group.add_argument("--conf-thres", type=float, default=0.25, help="lowest confidence")


def _some_formats(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--dynamic", action="store_true", help="free batch size, height and width")
    group.add_argument("--opset", type=int, default=17, help="onnx: opset version")
    group.add_argument("--simplify", action="store_true", help="onnx: simplify the graph with onnxslim")
    group.add_argument("--optimize", action="store_true", help="torchscript: for mobile devices; CPU only")
    group.add_argument("--keras", action="store_true", help="accepted: Keras's TFSMLayer loads a saved_model")
    group.add_argument("--mlmodel", action="store_true", help="coreml: the old file format")
    group.add_argument("--workspace", type=int, default=4, help="engine: GB of work memory")
    group.add_argument("--cache", default="", help="engine: timing cache file")


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
    _check_values(opt)
    for flag, formats in _MEANT_FOR.items():
        if getattr(opt, flag) and not set(formats) & set(opt.include):
            names = ", ".join(formats)
            LOG.warning(f"--{flag.replace('_', '-')} changes nothing here: it is for {names}")
    return opt


def _check_values(opt: argparse.Namespace) -> None:
    without_gpu = [name for name in opt.include if name in _NEED_GPU_FOR_HALF]
    counts = opt.topk_per_class, opt.topk_all, opt.calibration, opt.workspace
    for wrong, words in (
        (opt.batch_size < 1, f"--batch-size {opt.batch_size}: at least 1 is needed"),
        (opt.half and opt.dynamic, "--half and --dynamic exclude each other: choose one"),
        (opt.half and opt.int8, "--half and --int8 exclude each other: choose one"),
        (
            opt.half and opt.device == "cpu" and without_gpu,
            f"--half needs a GPU for {' '.join(without_gpu)}: add --device 0, or leave one of them out",
        ),
        (opt.optimize and opt.device != "cpu", f"--optimize is for the CPU: leave out --device {opt.device}"),
        (
            not OLDEST_OPSET <= opt.opset <= NEWEST_OPSET,
            f"--opset {opt.opset}: {OLDEST_OPSET} to {NEWEST_OPSET} can be written",
        ),
        (min(counts) < 1, "--topk-per-class, --topk-all, --calibration, --workspace: at least 1 is needed"),
        (not 0 <= opt.conf_thres <= 1, f"--conf-thres {opt.conf_thres}: 0 to 1 is needed"),
        (not 0 <= opt.iou_thres <= 1, f"--iou-thres {opt.iou_thres}: 0 to 1 is needed"),
    ):
        if wrong:
            raise ConfigError(words)
