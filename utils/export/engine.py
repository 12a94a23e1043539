"""TensorRT (.engine): built from the ONNX file, on the GPU that it is for. Not run by our tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS
from utils.base.paths import atomic_write
from utils.export import onnx
from utils.export.export_options import ExportOptions


def export(model: nn.Module, images: Tensor, path: Path, options: ExportOptions) -> None:
    """Write the ONNX file beside it, and build an engine from that.

    Raises:
        ConfigError: no GPU, or no TensorRT.
        DataError: TensorRT refuses the graph.
    """
    if images.device.type != "cuda":
        raise ConfigError("--include engine needs an NVIDIA GPU: add --device 0")
    try:
        import tensorrt as trt
    except ImportError as error:
        raise ConfigError(f"--include engine needs: {FORMATS['engine'].install}") from error
    source = path.with_suffix(".onnx")
    onnx.export(model, images, source, options)
    logger = trt.Logger(trt.Logger.VERBOSE if options.verbose else trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise DataError(f"TensorRT cannot read {source}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace << 30)
    if options.half and hasattr(trt.BuilderFlag, "FP16"):  # from 11 on the graph's own types count
        config.set_flag(trt.BuilderFlag.FP16)
    if options.dynamic:
        _allow_sizes(builder, config, network.get_input(0), images)
    cache = Path(options.cache) if options.cache else None
    if cache is not None:
        config.set_timing_cache(
            config.create_timing_cache(cache.read_bytes() if cache.is_file() else b""), True
        )
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise DataError("TensorRT built no engine; --verbose shows why")
    with atomic_write(path) as file:
        file.write(engine)
    if cache is not None:
        with atomic_write(cache) as file:
            file.write(config.get_timing_cache().serialize())


def _allow_sizes(builder: Any, config: Any, source: Any, images: Tensor) -> None:
    """From one image of 32 pixels a side to the example batch, for which it is made fastest."""
    shape = tuple(images.shape)
    profile = builder.create_optimization_profile()
    profile.set_shape(source.name, (1, shape[1], 32, 32), shape, shape)
    config.add_optimization_profile(profile)
