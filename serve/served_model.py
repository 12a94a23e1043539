"""A served model: images in, results out, several requests per batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch

from models.backends.base import Backend
from serve.batching import Batcher
from serve.middleware import Metrics
from serve.params import MIN_IMGSZ, RequestParams, check_names, invalid, read_format, read_integer
from serve.serve_options import ServeOptions
from utils.base.timing import Stopwatch
from utils.data.letterbox import to_tensor
from utils.tasks.task import get_task

Row = dict[str, Any]
Params = TypeVar("Params", bound=RequestParams)


@dataclass(frozen=True)
class InferenceTask(Generic[Params]):
    """An image (H, W, 3) BGR for the model, the (height, width) of the original, and the parameters."""

    image: np.ndarray
    original_hw: tuple[int, int]
    params: Params


@dataclass(frozen=True)
class Result(ABC):
    """What a model found in one image.

    Attributes:
        batch_size: number of images in its batch.
        seconds: of the stages inside of the model, by name; `inference` is that of the whole batch.
    """

    batch_size: int
    seconds: dict[str, float]

    @property
    def row_stage(self) -> str:
        """Name of the stage in which rows are made, if that takes long; else empty."""
        return ""

    @property
    def thresholds(self) -> dict[str, float]:
        """The thresholds that were used, by name."""
        return {}

    @abstractmethod
    def rows(self, names: Mapping[int, str]) -> list[Row]:
        """Return the rows of the response, in order of confidence; `names` are those of the classes."""

    @abstractmethod
    def draw(self, image: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
        """Return an image (H, W, 3) BGR with the result on it; `image` may be changed."""


class ServedModel(ABC, Generic[Params]):
    """One model of the server, with its queue.

    Args:
        name: name of the model.
        backend: the model.
        options: options of the server.
        metrics: of the server.
        imgsz: default input size; None to choose it. Files with a fixed size keep it.

    Attributes:
        routes: last parts of the paths whose responses are rows, and rows with details.
        rows_key: key of the rows in responses with details.
        parameters: names of the parameters of requests.
        task: the task of the model.
        batcher: the queue and its thread.
        imgsz: default input size, the longer side.
        fixed: whether the model takes no other size.
    """

    routes: ClassVar[tuple[str, str]]
    rows_key: ClassVar[str]
    parameters: ClassVar[tuple[str, ...]]

    def __init__(
        self, name: str, backend: Backend, options: ServeOptions, metrics: Metrics, imgsz: int | None = None
    ) -> None:
        self.name = name
        self.backend = backend
        self.options = options
        self.task = get_task(backend.task)
        self.fixed = backend.imgsz is not None
        self._shape = backend.imgsz or (self._rounded(imgsz or self._default_imgsz()),) * 2
        self.imgsz = max(self._shape)
        self.batcher: Batcher[InferenceTask[Params], Result] = Batcher(
            self._run,
            name,
            max_batch=options.max_batch,
            max_wait=options.max_wait_ms / 1000,
            max_requests=options.max_queue,
            on_batch=lambda size: metrics.batches.labels(name).observe(size),
        )
        metrics.watch_queue(name, lambda: self.batcher.waiting)

    def warmup(self) -> None:
        """Run the model once, so that the first request is not slower than the others."""
        self.backend.warmup((1, 3, *self._shape))

    def read_params(self, values: Mapping[str, str], accept: str) -> Params:
        """Parse and check the parameters of a request, from its query string and its form.

        Args:
            values: text by name; absent or empty parameters take the server's defaults.
            accept: the Accept header, which may ask for an image instead of JSON.

        Raises:
            RequestError: 422, with the parameter, its value and what is expected.
        """
        given = check_names(values, self.parameters, f"{self.name} is a {self.task.noun}")
        least, most = min(MIN_IMGSZ, self.imgsz), max(self.options.max_imgsz, self.imgsz)
        side = read_integer("imgsz", given.get("imgsz", str(self.imgsz)), least, most)
        if self.fixed and side != self.imgsz:
            raise invalid("imgsz", str(side), f"{self.imgsz}, the only input size of this model")
        return self._params(given, side, read_format(given.get("format", ""), accept))

    @abstractmethod
    def prepare(self, image: np.ndarray, params: Params) -> InferenceTask[Params]:
        """Make the input of the model from an image (H, W, 3) BGR."""

    def _default_imgsz(self) -> int:
        """Return the input size for a server without --imgsz."""
        size = self.task.size_for(self.backend.trained_imgsz)
        return size if size <= self.options.max_imgsz else self.task.default_imgsz

    @abstractmethod
    def _rounded(self, imgsz: int) -> int:
        """Return the input size that the model takes instead of `imgsz`."""

    @abstractmethod
    def _params(self, given: Mapping[str, str], imgsz: int, response_format: str) -> Params:
        """Parse the parameters that only models of this kind have."""

    @abstractmethod
    def _results(self, output: Any, tasks: Sequence[InferenceTask[Params]], inference: float) -> list[Result]:
        """Return a result for each image, from the output of the model for all of them.

        `inference` is the time that the batch took, in seconds.
        """

    def _run(self, tasks: Sequence[InferenceTask[Params]]) -> list[Result]:
        """Run the model on images of one shape."""
        backend = self.backend
        clock = Stopwatch(backend.device)
        with torch.inference_mode():
            with clock:
                images = to_tensor([task.image for task in tasks], backend.device, backend.fp16)
                output = backend(self.task.normalize(images))
            return self._results(output, tasks, clock.total)
