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
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.export.options import ExportOptions

_FREE_AXES = {"images": {0: "batch", 2: "height", 3: "width"}, "output0": {0: "batch", 1: "anchors"}}


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write `model` as a checked ONNX file, whole or not at all.

    Raises:
        ConfigError: the package `onnx` is missing.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConfigError("--include onnx needs: pip install onnx onnxruntime") from error
    if options.dynamic:  # only the CPU records the free sizes right
        model, images = deepcopy(model).cpu(), images.cpu()
    with tempfile.TemporaryDirectory(prefix="onnx-") as folder:
        draft = Path(folder, "model.onnx")
        _convert(model, images, draft, options)
        graph = onnx.load(str(draft))
    if options.simplify:
        graph = _simplified(graph)
    onnx.checker.check_model(graph)
    facts = {"stride": str(options.stride), "names": str(options.names)}
    onnx.helper.set_model_props(graph, facts)
    with atomic_write(path) as file:
        file.write(graph.SerializeToString())


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
            dynamic_axes=_FREE_AXES if options.dynamic else None,
            **choices,
        )


def _simplified(graph: Any) -> Any:
    try:
        import onnxslim
    except ImportError:
        LOG.warning("--simplify: the graph stays as it is; it needs: pip install onnxslim")
        return graph
    return onnxslim.slim(graph)
