"""Flags of export.py. Needs nothing but the standard library, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from utils.base.errors import ConfigError
from utils.base.formats import EXPORTS, known_format
from utils.base.log import LOG
from utils.base.options import BLOCKS_HELP, Options, changed, flag, flag_of

OPSETS = 11, 20  # oldest and newest that PyTorch's TorchScript-based ONNX exporter writes
EXPERIMENTAL = ("engine", "coreml", "edgetpu")  # the tests cannot run their files

# Options that only some formats have.
_WITH_NMS = ("onnx", "openvino", "engine", "saved_model", "pb")
_FORMATS_WITH = {
    "optimize": ("torchscript",),
    "dynamic": ("onnx", "openvino", "engine"),
    "simplify": ("onnx", "engine"),
    "half": ("torchscript", "onnx", "openvino", "engine", "coreml", "tflite", "ncnn", "yolov5"),
    "int8": ("onnx", "openvino", "coreml", "tflite", "edgetpu"),
    "per_tensor": ("tflite", "edgetpu"),
    "cache": ("engine",),
    "mlmodel": ("coreml",),
    "nms": _WITH_NMS,
    "agnostic_nms": _WITH_NMS,
}
_HALF_NEEDS_GPU = ("torchscript", "engine")

_general = partial(flag, group="all formats")
_precision = partial(flag, group="precision")
_nms = partial(flag, group="NMS in the model")
_specific = partial(flag, group="some formats")


@dataclass(frozen=True)
class ExportOptions(Options):
    """Options of export.py."""

    prog, description = "export.py", "Export checkpoints to formats that other runtimes read."

    weights: list[str] = _general(["yolov5s.pt"], "checkpoint path(s), exported one after another")
    blocks: str = _general("", BLOCKS_HELP)
    include: list[str] = _general(
        ["torchscript"],
        f"formats: {', '.join(EXPORTS)}. Experimental, as the tests do not run them: "
        f"{', '.join(EXPERIMENTAL)}",
    )
    imgsz: tuple[int, int] = _general(
        (640, 640), "image size (pixels): one side, or height and width", aliases=("--img", "--img-size")
    )
    batch_size: int = _general(1, "batch size", between=(1, None))
    device: str = _general("cpu", "cpu, mps, or a CUDA device such as 0")
    inplace: bool = _general(False, "accepted, without effect: the decoded boxes are the same")
    verbose: bool = _general(False, "show the messages of the converters")

    half: bool = _precision(False, "FP16; not with --dynamic")
    int8: bool = _precision(False, "INT8, for formats that have it")
    per_tensor: bool = _precision(False, "tflite: per-tensor quantization")
    data: str = _precision("data/coco128.yaml", "dataset yaml; --int8 is calibrated on its training images")
    calibration: int = _precision(100, "number of calibration images", between=(1, None))

    nms: bool = _nms(False, "append NMS to the model; its output is (B, K, 6)")
    agnostic_nms: bool = _nms(False, "class-agnostic NMS")
    topk_per_class: int = _nms(100, "maximum detections per class", between=(1, None))
    topk_all: int = _nms(100, "maximum detections per image, K", between=(1, None))
    iou_thres: float = _nms(0.45, "NMS IoU threshold", between=(0, 1))
    conf_thres: float = _nms(0.25, "confidence threshold", between=(0, 1))

    dynamic: bool = _specific(False, "dynamic batch size, height and width")
    opset: int = _specific(17, "onnx: version of the operator set", between=OPSETS)
    simplify: bool = _specific(False, "onnx: simplify the graph with onnxslim")
    optimize: bool = _specific(False, "torchscript: run PyTorch's mobile optimizer; CPU only")
    keras: bool = _specific(False, "accepted, without effect: Keras's TFSMLayer loads a saved_model")
    mlmodel: bool = _specific(False, "coreml: write the older .mlmodel format")
    workspace: int = _specific(
        4, "engine: memory that TensorRT may use while it builds (GB)", between=(1, None)
    )
    cache: str = _specific("", "engine: timing cache file")

    def check(self) -> None:
        """Resolve the names of formats and check options that depend on each other.

        Raises:
            ConfigError: an unknown format, or options that exclude each other.
        """
        include = list(dict.fromkeys(known_format(name, EXPORTS).name for name in self.include))
        object.__setattr__(self, "include", include)
        if self.half and self.dynamic:
            raise ConfigError("--half and --dynamic exclude each other: choose one")
        if self.half and self.int8:
            raise ConfigError("--half and --int8 exclude each other: choose one")
        gpu_only = [name for name in include if name in _HALF_NEEDS_GPU]
        if self.half and self.device == "cpu" and gpu_only:
            names = " ".join(gpu_only)
            raise ConfigError(f"--half needs a GPU for {names}: add --device 0, or leave out {names}")
        if self.optimize and self.device != "cpu":
            raise ConfigError(f"--optimize is for the CPU: leave out --device {self.device}")
        for name, formats in _FORMATS_WITH.items():
            if getattr(self, name) and not set(formats) & set(include):
                LOG.warning(f"{flag_of(type(self), name)} has no effect: it is for {', '.join(formats)}")

    @property
    def precision(self) -> str:
        """`int8`, `half`, or empty for FP32."""
        return "int8" if self.int8 else "half" if self.half else ""

    def for_format(self, name: str) -> ExportOptions:
        """Return the options for one format; those that it does not have are reset, with a warning."""
        absent = [key for key in _FORMATS_WITH if getattr(self, key) and not supports(name, key)]
        if absent:
            flags = ", ".join(flag_of(type(self), key) for key in absent)
            LOG.warning(f"{name}: written without {flags}, which it does not support")
        return changed(self, include=[name], **{key: "" if key == "cache" else False for key in absent})


def supports(name: str, option: str) -> bool:
    """Return whether the format `name` has an option such as `half`, which not all formats have."""
    return name in _FORMATS_WITH[option]
