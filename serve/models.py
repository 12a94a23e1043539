"""A served model: images in, boxes and masks out, several requests per batch."""

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
from serve.middleware import Metrics
from serve.request import RequestParams
from serve.serve_options import ServeOptions
from utils.base.device import select_device
from utils.base.names import unique_stems
from utils.base.timing import Stopwatch
from utils.data.letterbox import check_img_size, letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression
from utils.tasks.segment.prediction import FrameMasks


@dataclass(frozen=True)
class InferenceTask:
    """A letterboxed image (H, W, 3) BGR, the (height, width) of the original, and the parameters."""

    image: np.ndarray
    original_hw: tuple[int, int]
    params: RequestParams


@dataclass(frozen=True)
class DetectionResult:
    """Detections of one image.

    Attributes:
        detections: (n, 6), xyxy in pixels of the original image, confidence, class; best first.
        batch_size: number of images in its batch.
        inference: seconds of the whole batch.
        nms: seconds of this image's NMS.
        masks: of these detections; None of a detection model, or if the request asks for none.
    """

    detections: np.ndarray
    batch_size: int
    inference: float
    nms: float
    masks: FrameMasks | None = None


class ServedModel:
    """One model of the server, with its queue.

    Attributes:
        batcher: the queue and its thread.
        segments: whether it is a segmentation model.
        imgsz: default input size, the longer side.
        fixed: whether the model takes no other size.
    """

    def __init__(self, name: str, backend: Backend, options: ServeOptions, metrics: Metrics) -> None:
        self.name = name
        self.backend = backend
        self.max_det = options.max_det
        self.segments = backend.task == "segment"
        self.fixed = backend.imgsz is not None
        self._shape = backend.imgsz or (check_img_size(options.imgsz, backend.stride),) * 2
        self.imgsz = max(self._shape)
        self.batcher: Batcher[InferenceTask, DetectionResult] = Batcher(
            self._detect,
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

    def prepare(self, image: np.ndarray, params: RequestParams) -> InferenceTask:
        """Letterbox an image as `detect.py` does: to a rectangle where the model takes any size."""
        stride = self.backend.stride
        side = -(-params.imgsz // stride) * stride
        shape = self._shape if self.fixed else (side, side)
        boxed = letterbox(image, shape, auto=self.backend.pt, stride=stride)[0]
        return InferenceTask(boxed, (image.shape[0], image.shape[1]), params)

    def _detect(self, tasks: Sequence[InferenceTask]) -> list[DetectionResult]:
        """Run the model on images of one shape, then NMS on each with its own thresholds."""
        device = self.backend.device
        clock = Stopwatch(device)
        with torch.inference_mode():
            with clock:
                images = to_tensor([task.image for task in tasks], device, self.backend.fp16)
                output = self.backend(images)
            decoded, protos = output if self.segments else (output, [None] * len(tasks))
            return [
                self._suppress(decoded[index : index + 1], protos[index], task, len(tasks), clock.total)
                for index, task in enumerate(tasks)
            ]

    def _suppress(
        self,
        decoded: Tensor,
        protos: Tensor | None,
        task: InferenceTask,
        batch_size: int,
        inference: float,
    ) -> DetectionResult:
        """Run NMS on the boxes of one image, (1, N, 5 + nc + nm), and scale them to the original image."""
        clock, params = Stopwatch(self.backend.device), task.params
        height, width = task.image.shape[:2]
        with clock:
            (kept,) = non_max_suppression(
                decoded,
                params.conf,
                params.iou,
                params.classes,
                max_det=self.max_det,
                nm=0 if protos is None else len(protos),
            )
            rows = kept.cpu()
            detections = rows[:, :6].numpy().astype(np.float64)
            scale_boxes((height, width), detections[:, :4], task.original_hw)
        masks = None
        if protos is not None and params.masks != "none":
            masks = FrameMasks(protos.cpu(), rows, (height, width), task.original_hw)
        return DetectionResult(detections, batch_size, inference, clock.total, masks)


def load_models(options: ServeOptions, metrics: Metrics) -> dict[str, ServedModel]:
    """Load every file of `--weights`, named by its stem; equal stems get a number.

    Raises:
        ConfigError, DataError: see `models.backends`.
    """
    device = select_device(options.device)
    names = None if all(file.endswith(".pt") for file in options.weights) else read_class_names(options.data)
    stems = unique_stems([Path(file) for file in options.weights])
    loaded = {}
    for stem, file in zip(stems, options.weights, strict=True):
        backend = load_backend(file, device, names=names, half=options.half)
        loaded[stem] = ServedModel(stem, backend, options, metrics)
        loaded[stem].warmup()
    return loaded
