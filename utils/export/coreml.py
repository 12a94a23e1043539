"""Core ML (.mlpackage, or the old .mlmodel): converted on any system, run on macOS and iOS."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.export.export_options import ExportOptions
from utils.export.output import move, whole_folder


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Convert `model`; its input `image` is an image of 8 bits a channel.

    Raises:
        ConfigError: the package is missing.
    """
    if len(images) != 1:
        raise ConfigError("--include coreml: a Core ML image comes alone, use --batch-size 1")
    try:
        # It would load TensorFlow too, if there is one, after which PyTorch's Triton crashes on import.
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
        import coremltools as ct
    except ImportError as error:
        raise ConfigError(f"--include coreml needs: {FORMATS['coreml'].install}") from error
    image = ct.ImageType("image", shape=tuple(images.shape), scale=1 / 255, bias=[0, 0, 0])
    precision = ct.precision.FLOAT16 if options.half else ct.precision.FLOAT32
    kind = {"convert_to": "neuralnetwork"} if options.mlmodel else {
        "convert_to": "mlprogram", "compute_precision": precision}  # fmt: skip
    program = torch.export.export(model, (images.contiguous(),)).run_decompositions({})
    made: Any = ct.convert(program, inputs=[image], **kind)
    if options.int8:
        made = _quantised(ct, made, options.mlmodel)
    for key, value in options.metadata(images).items():
        made.user_defined_metadata[key] = str(value)
    with tempfile.TemporaryDirectory(prefix="coreml-") as work:
        draft = Path(work, f"model{path.suffix}")
        made.save(str(draft))
        if draft.is_file():
            move(draft, path)
            return
        with whole_folder(path) as folder:
            shutil.copytree(draft, folder, dirs_exist_ok=True)


def _quantised(ct: Any, made: Any, old: bool) -> Any:
    """Weights of 8 bits, one scale a channel."""
    if old:
        return ct.models.neural_network.quantization_utils.quantize_weights(made, 8)
    from coremltools.optimize import coreml as optimise

    config = optimise.OptimizationConfig(optimise.OpLinearQuantizerConfig(mode="linear_symmetric"))
    return optimise.linear_quantize_weights(made, config)
