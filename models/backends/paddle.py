"""PaddlePaddle folders: inference_model/ with a program and its numbers, stride and names in .yaml."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import from_yaml
from utils.base.errors import ConfigError, DataError
from utils.base.formats import existing_folder


class PaddleBackend(Backend):
    """Paddle Inference on the CPU."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        program, numbers = existing_folder(weights, "*.[jp][sd][om]*", "*.pdiparams")
        try:
            from paddle import inference
        except ImportError as error:
            raise ConfigError(f"{weights} needs PaddlePaddle: pip install paddlepaddle") from error
        config = inference.Config(str(program), str(numbers))
        config.disable_glog_info()
        config.disable_mkldnn()  # 3.3 cannot run what X2Paddle makes of max pooling with it
        config.set_cpu_math_library_num_threads(torch.get_num_threads())
        try:
            self.runner = inference.create_predictor(config)
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"{weights}: Paddle cannot read it ({str(error).strip()[:200]})") from error
        self.source = self.runner.get_input_handle(self.runner.get_input_names()[0])
        self.result = self.runner.get_output_handle(self.runner.get_output_names()[0])
        self.adopt(from_yaml(program.parent))

    def infer(self, images: Tensor) -> Tensor:
        """Run the predictor on numpy arrays."""
        self.source.copy_from_cpu(np.ascontiguousarray(images.float().cpu().numpy()))
        self.runner.run()
        return torch.from_numpy(self.result.copy_to_cpu()).to(self.device)
