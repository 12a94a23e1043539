"""Segment the objects in frames."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from utils.predict.predictor import Predictor
from utils.tasks.segment.prediction import FrameMasks


class SegmentPredictor(Predictor):
    """Detection of objects with their masks; `options` are those of segment/predict.py."""

    def outputs_of(self, output: Any) -> tuple[Tensor, Tensor | None]:
        decoded, protos = output
        return decoded, protos

    def masks(
        self,
        protos: Tensor | None,
        detections: Tensor,
        input_hw: tuple[int, int],
        rows: np.ndarray,
        image_hw: tuple[int, int],
    ) -> FrameMasks:
        options: Any = self.options
        assert protos is not None
        return FrameMasks.of(protos, detections, input_hw, rows, image_hw, options.retina_masks)
