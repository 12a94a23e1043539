"""PaddlePaddle folders: inference_model/ with a program and its parameters, metadata in .yaml."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import from_yaml
from utils.base.errors import DataError, one_line
from utils.base.formats import existing_folder


class PaddleBackend(Backend):
    """Paddle Inference on the CPU."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        program, parameters = existing_folder(weights, "*.[jp][sd][om]*", "*.pdiparams")
        inference = import_runtime("paddle.inference", weights, "PaddlePaddle: pip install paddlepaddle")
        config = inference.Config(str(program), str(parameters))
        config.disable_glog_info()
        config.disable_mkldnn()  # with it version 3.3 cannot run the max pooling of X2Paddle
        config.set_cpu_math_library_num_threads(torch.get_num_threads())
        try:
            self.predictor = inference.create_predictor(config)
        except (RuntimeError, OSError, ValueError) as error:
            raise DataError(f"{weights}: Paddle cannot read it ({one_line(error)[:200]})") from error
        self.input = self.predictor.get_input_handle(self.predictor.get_input_names()[0])
        names = self.predictor.get_output_names()
        self.outputs = [self.predictor.get_output_handle(name) for name in names]
        self.count_outputs(len(names))
        self.apply_metadata(from_yaml(program.parent))

    def infer(self, images: Tensor) -> Outputs:
        """Run the predictor on a numpy array."""
        self.input.copy_from_cpu(np.ascontiguousarray(images.float().cpu().numpy()))
        self.predictor.run()
        return [torch.from_numpy(output.copy_to_cpu()).to(self.device) for output in self.outputs]
