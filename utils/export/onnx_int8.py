"""8-bit integers for ONNX: static quantisation by ONNX Runtime, in the form (QDQ) that others read too."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from utils.base.errors import ConfigError
from utils.base.telemetry import hush_onnxruntime
from utils.export.export_options import ExportOptions


def quantise(draft: Path, options: ExportOptions) -> Path:
    """Quantise the convolutions of a float32 file; head and decoding, which need more than 8 bits, stay.

    Raises:
        ConfigError: ONNX Runtime is missing.
    """
    hush_onnxruntime()
    try:
        from onnxruntime import quantization as q
        from onnxruntime.quantization.shape_inference import quant_pre_process
    except ImportError as error:
        raise ConfigError("--int8 for onnx needs: pip install onnx onnxruntime") from error
    assert options.pictures is not None
    prepared, made = draft.with_name("prepared.onnx"), draft.with_name("int8.onnx")
    quant_pre_process(str(draft), str(prepared), skip_symbolic_shape=True)
    q.quantize_static(
        str(prepared),
        str(made),
        _reader(q.CalibrationDataReader, options.pictures()),
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


def _reader(base: type, pictures: Sequence[Tensor]) -> Any:
    """The calibration pictures as ONNX Runtime asks for them."""

    class Reader(base):
        def __init__(self) -> None:
            self.left = iter(pictures)

        def get_next(self) -> dict[str, np.ndarray] | None:
            picture = next(self.left, None)
            return None if picture is None else {"images": picture.numpy()}

    return Reader()
