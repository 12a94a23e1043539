"""ExecuTorch programs (.pte); a zip archive at the end of the file holds stride and names."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import from_zip
from utils.base.errors import DataError, one_line
from utils.base.formats import FORMATS, existing_file


class ExecuTorchBackend(Backend):
    """ExecuTorch with XNNPACK."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        install = f"ExecuTorch: {FORMATS['executorch'].install}"
        executorch = import_runtime("executorch.runtime", weights, install)
        self.apply_metadata(from_zip(path))
        try:
            self.program = executorch.Runtime.get().load_program(path)
            self.method = self.program.load_method("forward")
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{weights}: ExecuTorch cannot read it ({one_line(error)})") from error

    def infer(self, images: Tensor) -> Outputs:
        """Run the program."""
        outputs = self.method.execute([images.float().cpu().contiguous()])
        return [output.clone().to(self.device) for output in outputs]
