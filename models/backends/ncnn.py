"""NCNN folders: model.ncnn.param, model.ncnn.bin and metadata.yaml."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import from_yaml
from utils.base.errors import DataError
from utils.base.formats import existing_folder


class NcnnBackend(Backend):
    """NCNN on the CPU, one image at a time."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        network, parameters = existing_folder(weights, "*.param", "*.bin")
        ncnn = import_runtime("ncnn", weights, "NCNN: pip install ncnn")
        self.mat = ncnn.Mat
        self.net = ncnn.Net()
        self.net.opt.num_threads = torch.get_num_threads()
        self.net.opt.use_vulkan_compute = False
        if self.net.load_param(str(network)) or self.net.load_model(str(parameters)):
            raise DataError(f"{weights}: NCNN cannot read it")
        self.apply_metadata(from_yaml(network.parent))
        self.batch = 1

    def infer(self, images: Tensor) -> Outputs:
        """Run the network on one image."""
        with self.net.create_extractor() as extractor:
            image = np.ascontiguousarray(images[0].cpu().numpy())  # Mat only points to it: it must stay alive
            extractor.input(self.net.input_names()[0], self.mat(image))
            outputs = [extractor.extract(name)[1] for name in self.net.output_names()]
            return [torch.from_numpy(np.array(output))[None].to(self.device) for output in outputs]
