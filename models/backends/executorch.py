"""ExecuTorch programs (.pte); stride and names stand in a zip archive at the end of the file."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import from_zip
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, existing_file


class ExecuTorchBackend(Backend):
    """ExecuTorch with XNNPACK."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        try:
            from executorch.runtime import Runtime
        except ImportError as error:
            raise ConfigError(f"{weights} needs ExecuTorch: {FORMATS['executorch'].install}") from error
        self.adopt(from_zip(path))
        try:
            self.program = Runtime.get().load_program(path)
            self.method = self.program.load_method("forward")
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{weights}: ExecuTorch cannot read it ({error})") from error

    def infer(self, images: Tensor) -> Tensor:
        """Run the program."""
        found: Tensor = self.method.execute([images.float().cpu().contiguous()])[0]
        return found.clone().to(self.device)
