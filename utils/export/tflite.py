"""TensorFlow Lite and Edge TPU by LiteRT Torch: images (B, H, W, 3) in, normalized boxes out."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS
from utils.export.export_settings import ExportSettings, append_metadata, move
from utils.export.wrappers import ChannelsLast

# Regular expressions for the tensors that --int8 quantizes. LiteRT Torch names a tensor after the module
# that computes it. The head's decoded boxes need more than 8 bits, but the Edge TPU has no floats.
BEFORE_HEAD = "^(?!.*(head.Detect_|ChannelsLast;|serving_default_output)).*$"
EVERYTHING = ".*"


def export_tflite(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Convert `model`; `--half` stores FP16 weights, `--int8` quantizes all layers before the head.

    Raises:
        ConfigError: LiteRT Torch is missing.
    """
    with tempfile.TemporaryDirectory(prefix="tflite-") as folder:
        file = _convert(model, images, Path(folder), settings, BEFORE_HEAD)
        append_metadata(file, settings.metadata(images))
        move(file, path)


def export_edgetpu(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Quantize all of `model` and compile it with Google's edgetpu_compiler. Experimental: not tested.

    Raises:
        ConfigError: no `--int8`, or a package or the compiler is missing.
        DataError: the compiler failed.
    """
    if settings.calibration_images is None:
        raise ConfigError("--include edgetpu needs --int8, and --data with images to calibrate with")
    compiler = shutil.which("edgetpu_compiler")
    if compiler is None:
        raise ConfigError("--include edgetpu needs edgetpu_compiler: https://coral.ai/docs/edgetpu/compiler")
    with tempfile.TemporaryDirectory(prefix="edgetpu-") as folder:
        file = _convert(model, images, Path(folder), settings, EVERYTHING)
        command = [compiler, "-s", "-o", folder, file.name]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        compiled = file.with_name(f"{file.stem}_edgetpu.tflite")
        if done.returncode or not compiled.is_file():
            raise DataError(f"edgetpu_compiler failed: {(done.stderr or done.stdout).strip()[-300:]}")
        append_metadata(compiled, settings.metadata(images))
        move(compiled, path)


def _convert(model: nn.Module, images: Tensor, folder: Path, settings: ExportSettings, scope: str) -> Path:
    """Write a file without metadata to `folder`; `scope` selects what `--int8` quantizes."""
    try:
        import litert_torch
    except ImportError as error:
        raise ConfigError(f"--include tflite needs: {FORMATS['tflite'].install}") from error
    height, width = images.shape[2:]
    wrapped = ChannelsLast(model, (height, width), boxes=settings.task != "classify").eval()
    channels_last = images.permute(0, 2, 3, 1).contiguous()
    file = folder / "float.tflite"
    litert_torch.convert(wrapped, (channels_last,)).export(str(file))
    if settings.int8 or settings.half:
        return _quantize(file, settings, scope)
    return file


def _quantize(file: Path, settings: ExportSettings, scope: str) -> Path:
    """Write the model of `file` with FP16 weights or in INT8, next to it."""
    from ai_edge_quantizer import qtyping, quantizer

    q = quantizer.Quantizer(str(file))
    result = _to_half(q, qtyping) if settings.half else _to_int8(q, qtyping, settings, scope)
    path = file.with_name("quantized.tflite")
    result.export_model(path)
    return path


def _to_half(q: Any, qtyping: Any) -> Any:
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    floats = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(weight_tensor_config=floats, explicit_dequantize=True)
    q.update_quantization_recipe(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, config, AlgorithmName.FLOAT_CASTING
    )
    return q.quantize()


def _to_int8(q: Any, qtyping: Any, settings: ExportSettings, scope: str) -> Any:
    granularity = qtyping.QuantGranularity
    q.add_static_config(
        scope,
        qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=granularity.TENSORWISE if settings.per_tensor else granularity.CHANNELWISE,
    )
    assert settings.calibration_images is not None
    samples = [
        {"args_0": image.permute(0, 2, 3, 1).contiguous().numpy()} for image in settings.calibration_images()
    ]
    return q.quantize(q.calibrate({"serving_default": samples}))
