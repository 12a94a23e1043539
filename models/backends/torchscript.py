"""TorchScript files; `config.txt` in them holds shape, stride and names."""

from __future__ import annotations

import json
import warnings

import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import Metadata
from utils.base.errors import DataError, first_line, one_line
from utils.base.formats import existing_file


class TorchScriptBackend(Backend):
    """A traced model, for the image size of its trace."""

    def __init__(self, weights: str, device: torch.device, *, half: bool = False) -> None:
        super().__init__(weights, device)
        path = existing_file(weights)
        extra = {"config.txt": ""}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # TorchScript is deprecated
                self.model = torch.jit.load(str(path), map_location=device, _extra_files=extra)
        except (RuntimeError, ValueError) as error:
            raise DataError(f"{weights}: not a TorchScript file ({first_line(error)})") from error
        self.fp16 = half and device.type == "cuda"
        self.model = self.model.half() if self.fp16 else self.model.float()
        if extra["config.txt"]:
            self._read_config(extra["config.txt"])

    def infer(self, images: Tensor) -> Tensor:
        """Run the traced model."""
        output = self.model(images)
        return output if isinstance(output, Tensor) else output[0]

    def _read_config(self, text: str | bytes) -> None:
        try:
            config = dict(json.loads(text))
            shape = config.pop("shape", None)
            size = [shape[2], shape[3]] if shape else None
        except (IndexError, TypeError, ValueError) as error:
            raise DataError(f"{self.file}: config.txt in it is corrupt ({one_line(error)})") from error
        self.apply_metadata(Metadata.of({**config, "imgsz": size}, self.file))
