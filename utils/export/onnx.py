"""ONNX: input `images`, output `output0`, stride and names as metadata.

PyTorch has two exporters. The older one, based on TorchScript, needs nothing but `onnx`; the newer
one needs onnxscript and writes opset 18 and later. We use the older: it gives opset 17, works from
PyTorch 2.4 on, and its graphs are the ones that other runtimes know from YOLOv5.
"""

from __future__ import annotations

import inspect
import tempfile
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.base.telemetry import hush_onnxruntime
from utils.export.export_options import ExportOptions
from utils.export.onnx_int8 import quantise
from utils.export.wrappers import Suppressed


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
    onnx.helper.set_model_props(graph, {key: str(value) for key, value in options.facts().items()})
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
    hush_onnxruntime()  # with which onnxslim checks its work
    try:
        import onnxslim
    except ImportError:
        LOG.warning("--simplify: the graph stays as it is; it needs: pip install onnxslim")
        return graph
    return onnxslim.slim(graph)
