"""A model with its queue: images in, boxes out, several at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.backends import load_backend
from models.backends.base import Backend
from models.backends.metadata import read_class_names
from serve.batching import Batcher
from serve.params import RequestParams
from serve.serve_options import ServeOptions
from serve.service_metrics import Metrics
from utils.base.device import select_device
from utils.base.names import unique_stems
from utils.base.timing import Stopwatch
from utils.data.letterbox import check_img_size, letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression


@dataclass(frozen=True)
class InferenceTask:
    """A letterboxed image (H, W, 3) BGR, the (height, width) it had before, and what is asked of it."""

    image: np.ndarray
    original_hw: tuple[int, int]
    params: RequestParams


@dataclass(frozen=True)
class Found:
    """Detections (n, 6) in pixels of the original image, and how they came about.

    `inference` is the seconds of the whole batch, for which each of its images had to wait.
    """

    rows: np.ndarray
    batch: int
    inference: float
    nms: float


class Served:
    """One model of the server.

    Attributes:
        batcher: its queue and its thread.
        imgsz: the input's longer side, where a request does not say.
        fixed: the model takes no other.
    """

    def __init__(self, name: str, backend: Backend, options: ServeOptions, metrics: Metrics) -> None:
        self.name = name
        self.backend = backend
        self.max_det = options.max_det
        self.fixed = backend.imgsz is not None
        self._shape = backend.imgsz or (check_img_size(options.imgsz, backend.stride),) * 2
        self.imgsz = max(self._shape)
        self.batcher: Batcher[InferenceTask, Found] = Batcher(
            self._find,
            name,
            max_batch=options.max_batch,
            max_wait=options.max_wait_ms / 1000,
            places=options.max_queue,
            on_batch=lambda size: metrics.batches.observe(name, size),
        )
        metrics.watch_queue(name, lambda: self.batcher.waiting)

    def warmup(self) -> None:
        """Run once, so that the first request is not slower than the others."""
        self.backend.warmup((1, 3, *self._shape))

    def prepare(self, image: np.ndarray, params: RequestParams) -> InferenceTask:
        """Letterbox an image as `detect.py` does: a rectangle where the model takes any, else all of it."""
        stride = self.backend.stride
        side = -(-params.imgsz // stride) * stride
        shape = self._shape if self.fixed else (side, side)
        boxed = letterbox(image, shape, auto=self.backend.pt, stride=stride)[0]
        return InferenceTask(boxed, (image.shape[0], image.shape[1]), params)

    def _find(self, tasks: Sequence[InferenceTask]) -> list[Found]:
        """Look at images of one shape; thin out each as its request says."""
        device = self.backend.device
        clock = Stopwatch(device)
        with torch.inference_mode():
            with clock:
                images = to_tensor([task.image for task in tasks], device, self.backend.fp16)
                decoded = self.backend(images)
            return [
                self._thin_out(decoded[index : index + 1], task, len(tasks), clock.total)
                for index, task in enumerate(tasks)
            ]

    def _thin_out(self, decoded: Tensor, task: InferenceTask, batch: int, inference: float) -> Found:
        """Suppress the boxes of one image, decoded (1, N, 5 + nc), and carry them back to it."""
        clock, params = Stopwatch(self.backend.device), task.params
        with clock:
            (found,) = non_max_suppression(
                decoded, params.conf, params.iou, params.classes, max_det=self.max_det
            )
            rows = found.cpu().numpy().astype(np.float64)
            scale_boxes(task.image.shape[:2], rows[:, :4], task.original_hw)
        return Found(rows, batch, inference, clock.total)


def load_models(options: ServeOptions, metrics: Metrics) -> dict[str, Served]:
    """Open every file of `--weights`, by its stem; equal stems get a number.

    Raises:
        ConfigError, DataError: see `models.backends`.
    """
    device = select_device(options.device)
    names = None if all(file.endswith(".pt") for file in options.weights) else read_class_names(options.data)
    stems = unique_stems([Path(file) for file in options.weights])
    served = {}
    for stem, file in zip(stems, options.weights, strict=True):
        backend = load_backend(file, device, names=names, half=options.half)
        served[stem] = Served(stem, backend, options, metrics)
        served[stem].warmup()
    return served
