"""TensorRT engines. Written after NVIDIA's documentation (version 10 and later); not run by our tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.backends.base import Backend
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, existing_file

_KINDS = {"FLOAT": torch.float32, "HALF": torch.float16}


class TensorRtBackend(Backend):
    """An engine for the GPU that it was made on; it holds no names, so --data gives them."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        if device.type != "cuda":
            raise ConfigError(f"{weights} needs an NVIDIA GPU, the device is {device.type}")
        path = existing_file(weights)
        try:
            import tensorrt as trt
        except ImportError as error:
            raise ConfigError(f"{weights} needs TensorRT: {FORMATS['engine'].install}") from error
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise DataError(f"{weights}: TensorRT cannot read it; engines fit one GPU and one version")
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        is_input = {name: self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.source = next(name for name in names if is_input[name])
        self.result = next(name for name in names if not is_input[name])
        self.fp16 = self._kind(self.source) == torch.float16
        self.read_shape([int(side) for side in self.engine.get_tensor_shape(self.source)])

    def infer(self, images: Tensor) -> Tensor:
        """Run the engine on this thread's CUDA stream."""
        images = images.contiguous()
        self.context.set_input_shape(self.source, tuple(images.shape))
        shape = tuple(self.context.get_tensor_shape(self.result))
        found = torch.empty(shape, dtype=self._kind(self.result), device=self.device)
        self.context.set_tensor_address(self.source, images.data_ptr())
        self.context.set_tensor_address(self.result, found.data_ptr())
        self.context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream)
        return found

    def _kind(self, name: str) -> Any:
        return _KINDS[self.engine.get_tensor_dtype(name).name]
