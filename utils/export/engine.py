"""TensorRT (.engine), built from an ONNX file on the GPU that runs it. Experimental: not tested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS
from utils.base.paths import atomic_write
from utils.export.export_settings import ExportSettings
from utils.export.onnx import export_onnx


def export_engine(model: nn.Module, images: Tensor, path: Path, settings: ExportSettings) -> None:
    """Write an ONNX file next to `path` and build an engine from it.

    Raises:
        ConfigError: no GPU, or no TensorRT.
        DataError: TensorRT cannot build the graph.
    """
    if images.device.type != "cuda":
        raise ConfigError("--include engine needs an NVIDIA GPU: add --device 0")
    try:
        import tensorrt as trt
    except ImportError as error:
        raise ConfigError(f"--include engine needs: {FORMATS['engine'].install}") from error
    source = path.with_suffix(".onnx")
    export_onnx(model, images, source, settings)
    logger = trt.Logger(trt.Logger.VERBOSE if settings.verbose else trt.Logger.WARNING)
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse_from_file(str(source)):
        raise DataError(f"TensorRT cannot read {source}: {parser.get_error(0)}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, settings.workspace << 30)
    if settings.half and hasattr(trt.BuilderFlag, "FP16"):  # TensorRT 11 takes the types from the graph
        config.set_flag(trt.BuilderFlag.FP16)
    if settings.dynamic:
        _set_dynamic_shapes(builder, config, network.get_input(0), images)
    cache = Path(settings.cache) if settings.cache else None
    if cache is not None:
        config.set_timing_cache(
            config.create_timing_cache(cache.read_bytes() if cache.is_file() else b""), True
        )
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise DataError("TensorRT could not build an engine; --verbose shows why")
    with atomic_write(path) as file:
        file.write(engine)
    if cache is not None:
        with atomic_write(cache) as file:
            file.write(config.get_timing_cache().serialize())


def _set_dynamic_shapes(builder: Any, config: Any, network_input: Any, images: Tensor) -> None:
    """Accept one image of 32 x 32 pixels up to the example batch, for which the engine is optimized."""
    shape = tuple(images.shape)
    profile = builder.create_optimization_profile()
    profile.set_shape(network_input.name, (1, shape[1], 32, 32), shape, shape)
    config.add_optimization_profile(profile)
