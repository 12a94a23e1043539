"""Core ML (.mlpackage or the older .mlmodel). Experimental: converted anywhere, run on macOS only."""

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
from utils.export.export_settings import ExportSettings, atomic_folder, move


def export_coreml(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Convert `model`; its input `image` is an image with 8 bits per channel.

    Raises:
        ConfigError: coremltools is missing, or the batch has several images.
    """
    if len(images) != 1:
        raise ConfigError("--include coreml: Core ML takes one image at a time, use --batch-size 1")
    try:
        # coremltools imports TensorFlow if it is installed, after which PyTorch's Triton crashes on import.
        sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
        import coremltools as ct
    except ImportError as error:
        raise ConfigError(f"--include coreml needs: {FORMATS['coreml'].install}") from error
    image = ct.ImageType("image", shape=tuple(images.shape), scale=1 / 255, bias=[0, 0, 0])
    precision = ct.precision.FLOAT16 if settings.half else ct.precision.FLOAT32
    kind = {"convert_to": "neuralnetwork"} if settings.mlmodel else {
        "convert_to": "mlprogram", "compute_precision": precision}  # fmt: skip
    program = torch.export.export(model, (images.contiguous(),)).run_decompositions({})
    converted: Any = ct.convert(program, inputs=[image], **kind)
    if settings.int8:
        converted = _quantize(ct, converted, settings.mlmodel)
    for key, value in settings.metadata(images).items():
        converted.user_defined_metadata[key] = str(value)
    with tempfile.TemporaryDirectory(prefix="coreml-") as work:
        draft = Path(work, f"model{path.suffix}")
        converted.save(str(draft))
        if draft.is_file():
            move(draft, path)
            return
        with atomic_folder(path) as folder:
            shutil.copytree(draft, folder, dirs_exist_ok=True)


def _quantize(ct: Any, converted: Any, mlmodel: bool) -> Any:
    """Quantize the weights to INT8, per channel."""
    if mlmodel:
        return ct.models.neural_network.quantization_utils.quantize_weights(converted, 8)
    from coremltools.optimize import coreml as optimize

    config = optimize.OptimizationConfig(optimize.OpLinearQuantizerConfig(mode="linear_symmetric"))
    return optimize.linear_quantize_weights(converted, config)
