"""OpenVINO: a folder with the network (.xml, .bin) and a yaml of metadata."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.base.device import disable_ort_telemetry
from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.base.options import changed
from utils.export.export_settings import ExportSettings, atomic_folder, write_metadata
from utils.export.onnx import write_graph


def export_openvino(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Convert `model`; `--half` stores FP16 weights, `--int8` quantizes the convolutions.

    Raises:
        ConfigError: a package is missing.
    """
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(f"--include openvino needs: {FORMATS['openvino'].install}") from error
    network = _convert(openvino, model, images.contiguous(), settings)
    if settings.int8:
        network = _quantize(network, settings)
    with atomic_folder(path) as folder:
        stem = path.name.removesuffix("_openvino_model").removesuffix("_int8")
        openvino.save_model(network, folder / f"{stem}.xml", compress_to_fp16=settings.half)
        write_metadata(folder / f"{stem}.yaml", settings.metadata())


def _convert(openvino: Any, model: nn.Module, images: Tensor, settings: ExportSettings) -> Any:
    if settings.nms:  # by way of ONNX, which has an operator for NMS
        if find_spec("onnx") is None:
            raise ConfigError(f"--nms for openvino needs: {FORMATS['onnx'].install}")
        with tempfile.TemporaryDirectory(prefix="openvino-") as folder:
            draft = Path(folder, "model.onnx")
            write_graph(model, images, draft, changed(settings, half=False))
            return openvino.convert_model(draft)
    shape = [-1, 3, -1, -1] if settings.dynamic else list(images.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces that tracing is deprecated
        network = openvino.convert_model(model, example_input=images, input=shape)
    network.inputs[0].get_tensor().set_names({"images"})
    for output, name in zip(network.outputs, settings.outputs, strict=True):
        output.get_tensor().set_names({name})
    return network


def _quantize(network: Any, settings: ExportSettings) -> Any:
    disable_ort_telemetry()  # NNCF may load ONNX Runtime
    try:
        import nncf
    except ImportError as error:
        raise ConfigError("--int8 for openvino needs: pip install nncf") from error
    if not settings.verbose:
        logging.getLogger("nncf").setLevel(logging.ERROR)  # nncf.set_log_level changes other loggers, too
    assert settings.calibration_images is not None
    images = settings.calibration_images()
    return nncf.quantize(
        network,
        nncf.Dataset(images, lambda image: image.numpy()),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=_decoding_operations(network)),
    )


def _decoding_operations(network: Any) -> list[str]:
    """Return the operations after the last convolutions: decoded boxes need more than 8 bits."""
    before_convolution: set[str] = set()
    names = []
    for operation in reversed(network.get_ordered_ops()):
        convolution = "Convolution" in operation.get_type_name()
        name = operation.get_friendly_name()
        if convolution or name in before_convolution:
            before_convolution.update(
                source.get_source_output().get_node().get_friendly_name() for source in operation.inputs()
            )
        elif operation.get_type_name() not in ("Constant", "Parameter", "Result"):
            names.append(name)
    return names
