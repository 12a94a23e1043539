"""Served classification models: the most probable classes of an image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from models.backends.base import Backend
from serve.middleware import Metrics
from serve.params import RequestParams
from serve.serve_options import ServeOptions
from serve.served_model import InferenceTask, Result, Row, ServedModel
from utils.base.errors import ConfigError
from utils.tasks.classify.top import caption_lines, draw_lines, top_classes
from utils.tasks.classify.transforms import center_crop


@dataclass(frozen=True)
class ClassificationResult(Result):
    """Classes of one image.

    Attributes beside those of `Result`:
        top: (k, 2), probability and class, the most probable first.
    """

    top: np.ndarray

    def rows(self, names: Mapping[int, str]) -> list[Row]:
        """Return the classes with the six digits that predictions.csv of classify/predict.py has."""
        return [
            {
                "confidence": float(f"{value:.6g}"),
                "class": int(index),
                "name": names.get(int(index), str(int(index))),
            }
            for value, index in self.top.tolist()
        ]

    def draw(self, image: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
        """Write the classes into the image, as classify/predict.py does."""
        image = np.ascontiguousarray(image)
        draw_lines(image, caption_lines(self.top.tolist(), names))
        return image


class ServedClassifier(ServedModel[RequestParams]):
    """A classification model.

    Raises:
        ConfigError: a file whose input is not a square, which the centre of an image is.
    """

    routes: ClassVar[tuple[str, str]] = ("image-classification", "classify")
    rows_key: ClassVar[str] = "classifications"
    parameters: ClassVar[tuple[str, ...]] = ("imgsz", "format")

    def __init__(
        self, name: str, backend: Backend, options: ServeOptions, metrics: Metrics, imgsz: int | None = None
    ) -> None:
        height, width = backend.imgsz or (1, 1)
        if height != width:
            raise ConfigError(
                f"{backend.file} takes images of {height}x{width}, expected a square: "
                "export it with one --imgsz"
            )
        super().__init__(name, backend, options, metrics, imgsz)

    def prepare(self, image: np.ndarray, params: RequestParams) -> InferenceTask[RequestParams]:
        """Crop the central square, as classify/predict.py does."""
        square = center_crop(image, params.imgsz)
        return InferenceTask(square, (image.shape[0], image.shape[1]), params)

    def _rounded(self, imgsz: int) -> int:
        return imgsz

    def _params(self, given: Mapping[str, str], imgsz: int, response_format: str) -> RequestParams:
        return RequestParams(imgsz, response_format)

    def _results(
        self, output: Any, tasks: Sequence[InferenceTask[RequestParams]], inference: float
    ) -> list[Result]:
        tops = top_classes(output.float().softmax(1)).cpu().numpy().astype(np.float64)
        return [ClassificationResult(len(tasks), {"inference": inference}, top) for top in tops]
