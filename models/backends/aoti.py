"""AOTInductor packages (.pt2). They hold machine code: load only files that you trust."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import Metadata
from utils.base.errors import DataError, first_line
from utils.base.formats import existing_file


class AotiBackend(Backend):
    """A model compiled by AOTInductor, for machines like the one on which it was exported."""

    def __init__(self, weights: str, device: torch.device) -> None:
        from torch._inductor import aoti_load_package

        super().__init__(weights, device)
        path = existing_file(weights)
        try:
            self.model = aoti_load_package(str(path))
            metadata = self.model.loader.get_metadata()
        except (RuntimeError, OSError) as error:
            raise DataError(f"{weights}: not an AOTInductor package ({first_line(error)})") from error
        values: dict[str, str] = {
            key: metadata[key] for key in ("stride", "names", "imgsz", "batch") if key in metadata
        }
        self.apply_metadata(Metadata.of(values, weights))

    def infer(self, images: Tensor) -> Tensor:
        """Run the compiled model."""
        output = self.model(images.contiguous())
        return output if isinstance(output, Tensor) else output[0]
