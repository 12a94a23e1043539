"""Core ML packages, on macOS. Experimental: written from Apple's documentation, not run by the tests."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, Outputs, import_runtime
from models.backends.metadata import Metadata
from utils.base.errors import ConfigError, DataError
from utils.base.inputs import expand_user


class CoreMlBackend(Backend):
    """Core ML, one image at a time."""

    def __init__(self, weights: str, device: torch.device) -> None:
        super().__init__(weights, device)
        if sys.platform != "darwin":
            raise ConfigError(f"{weights}: Core ML models run on macOS only")
        path = expand_user(weights)
        if not path.exists():
            raise DataError(f"--weights {weights}: no such file; make it with export.py")
        coremltools = import_runtime("coremltools", weights, "Core ML: pip install coremltools")
        self.model: Any = coremltools.models.MLModel(str(path))
        values = {key: self.model.user_defined_metadata[key] for key in ("stride", "names", "imgsz")}
        values["task"] = self.model.user_defined_metadata.get("task", "detect")
        self.apply_metadata(Metadata.of(values, weights))
        self.batch = 1

    def infer(self, images: Tensor) -> Outputs:
        """Run the model on an 8-bit image, which its input requires."""
        from PIL import Image

        rgb = (images[0].float() * 255).round().to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        found = self.model.predict({"image": Image.fromarray(rgb)}).values()
        outputs = [torch.from_numpy(np.asarray(output, np.float32)).to(self.device) for output in found]
        return outputs if self.task == "segment" else outputs[0].view(1, -1, self.nc + 5)
