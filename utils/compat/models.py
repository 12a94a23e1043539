"""YOLOv5's model classes for scripts: DetectMultiBackend, attempt_load, Ensemble."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import utils.compat.unpickling  # noqa: F401 - torch.load reads files with models from here on
from models.backends import detect_format, load_backend
from models.backends.pytorch import PyTorchBackend
from models.official_weights import locate_weights
from models.weights import load_for_inference
from utils.base.errors import ConfigError, DataError
from utils.base.names import class_names
from utils.compat.checks import check_suffix, check_yaml

__all__ = ["DetectMultiBackend", "Ensemble", "attempt_load"]

# Attributes that say which format a model file has, and the name of the format in utils/base/formats.py.
_FLAGS = {"pt": "pt", "jit": "torchscript", "onnx": "onnx", "xml": "openvino", "engine": "engine"}
_FLAGS |= {"saved_model": "saved_model", "pb": "pb", "tflite": "tflite", "edgetpu": "edgetpu"}
_FLAGS |= {"coreml": "coreml", "paddle": "paddle", "triton": "triton", "tfjs": "tfjs"}
_CHANNELS_LAST = ("coreml", "saved_model", "pb", "tflite", "edgetpu")


class Ensemble(nn.ModuleList):
    """Several models whose boxes are concatenated along N, for one NMS."""

    def forward(self, x: Tensor, augment: bool = False, profile: bool = False, visualize: Any = False) -> Any:
        """Return (decoded boxes of all models, None)."""
        return torch.cat([model(x, augment, profile, visualize)[0] for model in self], 1), None


class DetectMultiBackend(nn.Module):
    """A model file of any format, with the attributes that scripts read.

    Args:
        weights: model path(s); several .pt files form an ensemble.
        device: a torch.device, or its name.
        dnn: run ONNX with OpenCV.
        data: data yaml, for the names of a file that holds none.
        fp16: FP16, where the format and the device support it.
        fuse: fold batch norms of .pt files into their convolutions.

    Shape:
        (B, 3, H, W) in 0-1 -> for .pt files a list of decoded boxes (B, N, 5 + nc) and raw maps, or
        [boxes, None] with `augment` and for ensembles; for other formats the boxes. An official -seg file
        gives [boxes with 32 coefficients, prototypes, maps], a -cls file logits (B, nc).

    Raises:
        FileNotFoundError: there is no such file.
        AssertionError: a suffix of no known format.
        ConfigError, DataError: a file that cannot be loaded.
    """

    def __init__(
        self,
        weights: Any = "yolov5s.pt",
        device: Any = None,
        dnn: bool = False,
        data: Any = None,
        fp16: bool = False,
        fuse: bool = True,
    ) -> None:
        super().__init__()
        files = [str(file) for file in weights] if isinstance(weights, list | tuple) else [str(weights)]
        self.device = _device(device)
        try:
            name = detect_format(files[0]).name
        except ConfigError as error:
            raise AssertionError(str(error)) from None
        if name == "pt":
            check_suffix(files, (".pt", ".pth"))
            files = [_existing(file) for file in files]
        names = _names(data) if name != "pt" else None
        self.backend = load_backend(files, self.device, names=names, half=fp16, dnn=dnn, fuse=fuse)
        for flag, of_format in _FLAGS.items():
            setattr(self, flag, name == of_format)
        self.dnn = dnn
        self.nhwc = name in _CHANNELS_LAST
        self.names = dict(self.backend.names)
        self.stride = self.backend.stride
        self.fp16 = self.backend.fp16
        if isinstance(self.backend, PyTorchBackend):
            self.model: Any = self.backend.model
        else:
            self.model = self.backend

    def forward(self, im: Tensor, augment: bool = False, visualize: Any = False, **ignored: Any) -> Any:
        """Run the model; see the class for what it returns. `visualize` is a folder for feature maps."""
        if not isinstance(self.backend, PyTorchBackend):
            return self.backend(im, augment=augment)
        weight = next(self.model.parameters())
        output = self.model(im.to(weight), augment=augment, visualize=visualize)
        return list(output) if isinstance(output, list | tuple) else output

    def warmup(self, imgsz: Sequence[int] = (1, 3, 640, 640), half: bool = False) -> None:
        """Run once on zeros of shape `imgsz`, on a GPU only."""
        if self.device.type != "cpu":
            self.backend(torch.zeros(*imgsz, device=self.device))

    def from_numpy(self, x: Any) -> Any:
        """Return an array as a tensor on the device."""
        return torch.from_numpy(x).to(self.device) if not isinstance(x, Tensor) else x

    def _apply(self, fn: Any, recurse: bool = True) -> DetectMultiBackend:
        super()._apply(fn, recurse)
        if isinstance(self.backend, PyTorchBackend):
            self.backend.sync_device()
            self.device, self.fp16 = self.backend.device, self.backend.fp16
        return self


def attempt_load(
    weights: Any, device: Any = None, inplace: bool = True, fuse: bool = True, *, map_location: Any = None
) -> Any:
    """Load .pt files for inference: the network in eval mode, float32, with fused batch norms.

    Args:
        weights: path, or list of paths, of which several form an ensemble.
        device: where to run; the CPU by default.
        inplace: whether activations overwrite their input.
        fuse: fold batch norms into convolutions.
        map_location: `device` in versions until v6.1. Scripts of that age expect `names` to be a list.

    Raises:
        FileNotFoundError: there is no such file.
        AssertionError: the models of an ensemble have different numbers of classes.
    """
    files = [str(file) for file in weights] if isinstance(weights, list | tuple) else [str(weights)]
    target = _device(map_location if map_location is not None else device)
    found = [_existing(file) for file in files]
    try:
        model: Any = load_for_inference(found, target, fuse=fuse)
    except ConfigError as error:
        raise AssertionError(str(error)) from None
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = inplace
    if len(files) > 1:
        members = Ensemble(model.members)
        members.names, members.nc, members.yaml = model.names, model.nc, model.yaml
        members.stride, members.task = model.stride, model.task
        model = members.eval()
    model.inplace = inplace
    if map_location is not None:
        model.names = list(class_names(model.names).values())
    return model


def _existing(file: str) -> str:
    try:
        return str(locate_weights(file.strip().strip("'\"")))
    except (ConfigError, DataError) as error:
        raise FileNotFoundError(str(error).removeprefix("--weights ")) from None


def _device(device: Any) -> torch.device:
    if isinstance(device, torch.device):
        return device
    text = str("cpu" if device is None or device == "" else device)
    return torch.device(f"cuda:{text}" if text.isdigit() else text)


def _names(data: Any) -> dict[int, str] | None:
    """Return the class names of a data yaml, if it can be read."""
    from utils.base.yaml_io import read_yaml

    name = data[0] if isinstance(data, list | tuple) and data else data
    if not name:
        return None
    try:
        return class_names(read_yaml(Path(check_yaml(name))).get("names"))
    except (AssertionError, ConfigError, DataError, ValueError):
        return None


DetectMultiBackend.__module__ = "models.common"
