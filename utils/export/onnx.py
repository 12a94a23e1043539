"""ONNX (.onnx); INT8 by ONNX Runtime's static quantization in QDQ form, which other runtimes read too."""

from __future__ import annotations

import inspect
import tempfile
import warnings
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.base.device import disable_ort_telemetry
from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.export.export_settings import ExportSettings
from utils.export.onnx_constants import with_full_constants
from utils.export.wrappers import WithNMS


def export_onnx(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Export `model`, check the graph and write it with its metadata.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(f"--include onnx needs: {FORMATS['onnx'].install}") from error
    with tempfile.TemporaryDirectory(prefix="onnx-") as folder:
        draft = Path(folder, "model.onnx")
        write_graph(model, images, draft, settings)
        if settings.int8:
            draft = quantize(draft, settings)
        graph = onnx.load(str(draft))
    if settings.simplify:
        graph = _simplify(graph)
    if not settings.dynamic:
        graph = with_full_constants(graph)
    onnx.checker.check_model(graph)
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in settings.metadata().items()})
    with atomic_write(path) as file:
        file.write(graph.SerializeToString())


def write_graph(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Write the graph that PyTorch makes of `model`, in FP32 or FP16, without metadata."""
    if settings.dynamic:  # dynamic axes are traced correctly on the CPU only
        model, images = deepcopy(model).cpu(), images.cpu()
    if settings.half:
        model, images = deepcopy(model).half(), images.half()
    if settings.nms:
        model = WithNMS(model, settings).eval()
    keywords: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:  # PyTorch 2.4 does not have it
        keywords["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("default" if settings.verbose else "ignore")
        torch.onnx.export(
            model,
            (images,),
            str(path),
            verbose=settings.verbose,
            opset_version=settings.opset,
            do_constant_folding=True,
            input_names=["images"],
            output_names=settings.outputs,
            dynamic_axes=_dynamic_axes(settings),
            **keywords,
        )


def _dynamic_axes(settings: ExportSettings) -> dict[str, dict[int, str]] | None:
    if not settings.dynamic:
        return None
    axes = {
        "images": {0: "batch", 2: "height", 3: "width"},
        "output0": {0: "batch"} | ({} if settings.nms or settings.task == "classify" else {1: "anchors"}),
        "output1": {0: "batch", 2: "mask_height", 3: "mask_width"},
    }
    return {name: axes[name] for name in ("images", *settings.outputs)}


def _simplify(graph: Any) -> Any:
    disable_ort_telemetry()  # onnxslim may run ONNX Runtime
    try:
        import onnxslim
    except ImportError:
        LOG.warning("--simplify: the graph is not simplified; it needs: pip install onnxslim")
        return graph
    return onnxslim.slim(graph)


def quantize(file: Path, settings: ExportSettings) -> Path:
    """Quantize the convolutions of an FP32 file, except the head's: decoded boxes need more than 8 bits.

    Returns:
        The INT8 file, next to `file`.

    Raises:
        ConfigError: ONNX Runtime is missing.
    """
    disable_ort_telemetry()
    try:
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ConfigError("--int8 for onnx needs: pip install onnx onnxruntime") from error
    assert settings.calibration_images is not None
    prepared, quantized = file.with_name("prepared.onnx"), file.with_name("int8.onnx")
    quant_pre_process(str(file), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared),
        str(quantized),
        _data_reader(q.CalibrationDataReader, settings.calibration_images()),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv"],  # quantizing more costs time and accuracy (docs/export.md)
        nodes_to_exclude=last_convolutions(prepared),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    return quantized


def last_convolutions(file: Path) -> list[str]:
    """Return the names of the convolutions that no other convolution depends on: the head's."""
    import onnx

    graph = onnx.load(str(file)).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    before_convolution = {name for node in convolutions for name in node.input}
    for node in reversed(graph.node):  # nodes are in topological order
        if before_convolution.intersection(node.output):
            before_convolution.update(node.input)
    return [node.name for node in convolutions if not before_convolution.intersection(node.output)]


def _data_reader(base: type, images: Sequence[Tensor]) -> Any:
    """Return the calibration images as a CalibrationDataReader of ONNX Runtime."""

    class Reader(base):
        def __init__(self) -> None:
            self.remaining = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.remaining, None)
            return None if image is None else {"images": image.numpy()}

    return Reader()
