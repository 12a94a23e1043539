"""OpenVINO: a folder with the network (.xml, .bin) and its stride and names (.yaml)."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.base.device import disable_ort_telemetry
from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.export.export_options import ExportOptions
from utils.export.onnx import write_graph
from utils.export.output import whole_folder, write_metadata


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Convert `model`; `--half` stores 16-bit weights, `--int8` computes the convolutions in 8 bits.

    Raises:
        ConfigError: a package is missing.
    """
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    try:
        import openvino
    except ImportError as error:
        raise ConfigError(f"--include openvino needs: {FORMATS['openvino'].install}") from error
    network = _converted(openvino, model, images.contiguous(), options)
    if options.int8:
        network = _quantised(network, options)
    with whole_folder(path) as folder:
        stem = path.name.removesuffix("_openvino_model").removesuffix("_int8")
        openvino.save_model(network, folder / f"{stem}.xml", compress_to_fp16=options.half)
        write_metadata(folder / f"{stem}.yaml", options.metadata())


def _converted(openvino: Any, model: nn.Module, images: Tensor, options: ExportOptions) -> Any:
    if options.nms:  # the operator stands in ONNX's graph
        if find_spec("onnx") is None:
            raise ConfigError(f"--nms for openvino needs: {FORMATS['onnx'].install}")
        with tempfile.TemporaryDirectory(prefix="openvino-") as folder:
            draft = Path(folder, "model.onnx")
            write_graph(model, images, draft, replace(options, half=False))
            return openvino.convert_model(draft)
    shape = [-1, 3, -1, -1] if options.dynamic else list(images.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch announces the end of tracing
        network = openvino.convert_model(model, example_input=images, input=shape)
    network.inputs[0].get_tensor().set_names({"images"})
    network.outputs[0].get_tensor().set_names({"output0"})
    return network


def _quantised(network: Any, options: ExportOptions) -> Any:
    disable_ort_telemetry()  # which NNCF may load
    try:
        import nncf
    except ImportError as error:
        raise ConfigError("--int8 for openvino needs: pip install nncf") from error
    if not options.verbose:
        logging.getLogger("nncf").setLevel(logging.ERROR)  # its own function changes others' handlers, too
    assert options.calibration_images is not None
    images = options.calibration_images()
    return nncf.quantize(
        network,
        nncf.Dataset(images, lambda image: image.numpy()),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(images),
        ignored_scope=nncf.IgnoredScope(names=_decoding(network)),
    )


def _decoding(network: Any) -> list[str]:
    """Operations that lead to no convolution: the decoding, whose pixels need more than 8 bits."""
    wanted: set[str] = set()
    names = []
    for operation in reversed(network.get_ordered_ops()):
        convolution = "Convolution" in operation.get_type_name()
        name = operation.get_friendly_name()
        if convolution or name in wanted:
            wanted.update(source.get_source_output().get_node().get_friendly_name()
                          for source in operation.inputs())  # fmt: skip
        elif operation.get_type_name() not in ("Constant", "Parameter", "Result"):
            names.append(name)
    return names
