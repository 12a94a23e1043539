"""TensorRT engines (version 10 and later). Experimental: not run by the tests."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, existing_file

_DTYPES = {"FLOAT": torch.float32, "HALF": torch.float16}


class TensorRtBackend(Backend):
    """An engine for the GPU on which it was built; it holds no names, so --data gives them."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        if device.type != "cuda":
            raise ConfigError(f"{weights} needs an NVIDIA GPU, but --device is {device.type}")
        path = existing_file(weights)
        trt = import_runtime("tensorrt", weights, f"TensorRT: {FORMATS['engine'].install}")
        self.runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
        self.engine = self.runtime.deserialize_cuda_engine(path.read_bytes())
        if self.engine is None:
            raise DataError(
                f"{weights}: TensorRT cannot read it; an engine fits one GPU model and TensorRT version"
            )
        self.context = self.engine.create_execution_context()
        names = [self.engine.get_tensor_name(index) for index in range(self.engine.num_io_tensors)]
        is_input = {name: self.engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT for name in names}
        self.input = next(name for name in names if is_input[name])
        self.outputs = [name for name in names if not is_input[name]]
        self.count_outputs(len(self.outputs), len(self.engine.get_tensor_shape(self.outputs[0])))
        self.fp16 = self._dtype(self.input) == torch.float16
        self.read_input_shape([int(side) for side in self.engine.get_tensor_shape(self.input)])

    def infer(self, images: Tensor) -> Outputs:
        """Run the engine on this thread's CUDA stream."""
        images = images.contiguous()
        self.context.set_input_shape(self.input, tuple(images.shape))
        self.context.set_tensor_address(self.input, images.data_ptr())
        outputs = []
        for name in self.outputs:
            shape = tuple(self.context.get_tensor_shape(name))
            output = torch.empty(shape, dtype=self._dtype(name), device=self.device)
            self.context.set_tensor_address(name, output.data_ptr())
            outputs.append(output)
        self.context.execute_async_v3(torch.cuda.current_stream(self.device).cuda_stream)
        return outputs

    def _dtype(self, name: str) -> Any:
        return _DTYPES[self.engine.get_tensor_dtype(name).name]
