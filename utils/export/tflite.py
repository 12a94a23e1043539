"""TensorFlow Lite by LiteRT Torch: images (B, H, W, 3) in, boxes as fractions of the image out."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.export.export_options import ExportOptions
from utils.export.output import append_metadata, move
from utils.export.wrappers import ChannelsLast

# Names of all that comes before the head, whose pixels need more than 8 bits. LiteRT Torch names what an
# operation makes after the module that it comes from.
BEFORE_DETECT = "^(?!.*(head.Detect_|ChannelsLast;|serving_default_output)).*$"


def export(
    model: nn.Module, images: Tensor, path: Path, options: ExportOptions, scope: str = BEFORE_DETECT
) -> None:
    """Convert `model`; `--half` stores 16-bit weights, `--int8` computes in 8 bits.

    `scope` is a regular expression for the names of what `--int8` computes in 8 bits.

    Raises:
        ConfigError: a package is missing.
    """
    with tempfile.TemporaryDirectory(prefix="tflite-") as folder:
        draft = Path(folder, "model.tflite")
        write_floats(model, images, draft)
        if options.int8 or options.half:
            draft = _reduced(draft, options, scope)
        append_metadata(draft, options.metadata(images))
        move(draft, path)


def write_floats(model: nn.Module, images: Tensor, path: Path) -> None:
    """Write the model in float32, without metadata."""
    try:
        import litert_torch
    except ImportError as error:
        raise ConfigError(f"--include tflite needs: {FORMATS['tflite'].install}") from error
    height, width = images.shape[2:]
    wrapped = ChannelsLast(model, (height, width)).eval()
    channels_last = images.permute(0, 2, 3, 1).contiguous()
    litert_torch.convert(wrapped, (channels_last,)).export(str(path))


def _reduced(draft: Path, options: ExportOptions, scope: str) -> Path:
    """The same model with 16-bit weights, or in 8 bits but for its ends."""
    from ai_edge_quantizer import qtyping, quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName

    q = quantizer.Quantizer(str(draft))
    every = qtyping.TFLOperationName.ALL_SUPPORTED
    if options.half:
        floats = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
        stored = qtyping.OpQuantizationConfig(weight_tensor_config=floats, explicit_dequantize=True)
        q.update_quantization_recipe(".*", every, stored, AlgorithmName.FLOAT_CASTING)
        made = q.quantize()
    else:
        made = _calibrated(q, qtyping, options, scope)
    path = draft.with_name("reduced.tflite")
    made.export_model(path)
    return path


def _calibrated(q: Any, qtyping: Any, options: ExportOptions, scope: str) -> Any:
    grain = (
        qtyping.QuantGranularity.TENSORWISE if options.per_tensor else qtyping.QuantGranularity.CHANNELWISE
    )
    q.add_static_config(
        scope,
        qtyping.TFLOperationName.ALL_SUPPORTED,
        activation_num_bits=8,
        weight_num_bits=8,
        weight_granularity=grain,
    )
    assert options.calibration_images is not None
    samples = [
        {"args_0": image.permute(0, 2, 3, 1).contiguous().numpy()} for image in options.calibration_images()
    ]
    return q.quantize(q.calibrate({"serving_default": samples}))
