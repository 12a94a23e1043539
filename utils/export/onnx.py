"""8-bit integers for ONNX: static quantisation by ONNX Runtime, in the form (QDQ) that others read too."""

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
from utils.export.export_options import ExportOptions
from utils.export.wrappers import Suppressed


def quantise(draft: Path, options: ExportOptions) -> Path:
    """Quantise the convolutions of a float32 file; head and decoding, which need more than 8 bits, stay.

    Raises:
        ConfigError: ONNX Runtime is missing.
    """
    disable_ort_telemetry()
    try:
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ConfigError("--int8 for onnx needs: pip install onnx onnxruntime") from error
    assert options.calibration_images is not None
    prepared, made = draft.with_name("prepared.onnx"), draft.with_name("int8.onnx")
    quant_pre_process(str(draft), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared),
        str(made),
        _reader(q.CalibrationDataReader, options.calibration_images()),
        quant_format=q.QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["Conv"],  # more of them cost time and accuracy (docs/export.md)
        nodes_to_exclude=last_convolutions(prepared),
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
    )
    return made


def last_convolutions(file: Path) -> list[str]:
    """Names of the convolutions from which no path leads to another: the head's."""
    import onnx

    graph = onnx.load(str(file)).graph
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    wanted = {name for node in convolutions for name in node.input}
    for node in reversed(graph.node):  # nodes stand in the order in which they are computed
        if wanted.intersection(node.output):
            wanted.update(node.input)
    return [node.name for node in convolutions if not wanted.intersection(node.output)]


def _reader(base: type, images: Sequence[Tensor]) -> Any:
    """The calibration images as ONNX Runtime asks for them."""

    class Reader(base):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.left, None)
            return None if image is None else {"images": image.numpy()}

    return Reader()


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write `model` as a checked ONNX file, whole or not at all.

    Raises:
        ConfigError: a package is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(f"--include onnx needs: {FORMATS['onnx'].install}") from error
    with tempfile.TemporaryDirectory(prefix="onnx-") as folder:
        draft = Path(folder, "model.onnx")
        write_graph(model, images, draft, options)
        if options.int8:
            draft = quantise(draft, options)
        graph = onnx.load(str(draft))
    if options.simplify:
        graph = _simplified(graph)
    onnx.checker.check_model(graph)
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in options.metadata().items()})
    with atomic_write(path) as file:
        file.write(graph.SerializeToString())


def write_graph(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write what PyTorch makes of the model, without metadata."""
    if options.dynamic:  # only the CPU records the free sizes right
        model, images = deepcopy(model).cpu(), images.cpu()
    if options.half:
        model, images = deepcopy(model).half(), images.half()
    if options.nms:
        model = Suppressed(model, options).eval()
    _convert(model, images, path, options)


def _convert(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    choices: dict[str, Any] = {}
    if "dynamo" in inspect.signature(torch.onnx.export).parameters:  # absent from PyTorch 2.4
        choices["dynamo"] = False
    with warnings.catch_warnings():
        warnings.simplefilter("default" if options.verbose else "ignore")
        torch.onnx.export(
            model,
            (images,),
            str(path),
            verbose=options.verbose,
            opset_version=options.opset,
            do_constant_folding=True,
            input_names=["images"],
            output_names=["output0"],
            dynamic_axes=_free_axes(options),
            **choices,
        )


def _free_axes(options: ExportOptions) -> dict[str, dict[int, str]] | None:
    if not options.dynamic:
        return None
    boxes = {0: "batch"} if options.nms else {0: "batch", 1: "anchors"}
    return {"images": {0: "batch", 2: "height", 3: "width"}, "output0": boxes}


def _simplified(graph: Any) -> Any:
    disable_ort_telemetry()  # with which onnxslim checks its work
    try:
        import onnxslim
    except ImportError:
        LOG.warning("--simplify: the graph stays as it is; it needs: pip install onnxslim")
        return graph
    return onnxslim.slim(graph)
