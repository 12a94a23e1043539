"""Packages of AOTInductor (.pt2). They hold machine code: open those alone that you trust."""

from __future__ import annotations

import torch
from torch import Tensor

from models.backends.base import Backend
from models.backends.metadata import Metadata
from utils.base.errors import DataError, first_line
from utils.base.formats import existing_file


class AotiBackend(Backend):
    """A compiled model for the kind of machine that it was made on."""

    def __init__(self, weights: str, device: torch.device) -> None:
        from torch._inductor import aoti_load_package

        super().__init__(weights, device)
        path = existing_file(weights)
        try:
            self.model = aoti_load_package(str(path))
            metadata = self.model.loader.get_metadata()
        except (RuntimeError, OSError) as error:
            raise DataError(f"{weights}: no package of AOTInductor ({first_line(error)})") from error
        told: dict[str, str] = {
            key: metadata[key] for key in ("stride", "names", "imgsz", "batch") if key in metadata
        }
        self.adopt(Metadata.of(told, weights))

    def infer(self, images: Tensor) -> Tensor:
        """Run the compiled model."""
        found = self.model(images.contiguous())
        return found if isinstance(found, Tensor) else found[0]
