"""Detect objects in frames: letterbox, model, NMS. The predictors of other tasks are derived from it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.backends.base import Backend, LayerCallback
from utils.base.errors import ConfigError
from utils.base.names import describe_classes
from utils.base.timing import STAGES, Stopwatch
from utils.data.letterbox import check_img_size, letterbox, to_tensor
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression
from utils.predict.detect_options import DetectOptions
from utils.predict.writers import DetectOutputs
from utils.sources.frame import Frame
from utils.sources.source import ImageFile

if TYPE_CHECKING:
    from utils.tasks.segment.prediction import FrameMasks


class Prepared(NamedTuple):
    """A frame, and its image (h, w, 3) uint8 BGR at the input size of the model."""

    frame: Frame
    letterboxed: np.ndarray


class FrameResult(NamedTuple):
    """Detections (n, 6) of a frame: x1, y1, x2, y2 in whole pixels of its image, confidence, class.

    Of a classification model, `rows` are (k, 2): probability and class, the most probable first.
    """

    frame: Frame
    rows: np.ndarray
    input_hw: tuple[int, int]
    seconds: tuple[float, ...]  # of each of `STAGES`
    masks: FrameMasks | None = None  # of a segmentation model


class Predictor:
    """Detection of objects in frames.

    Args:
        options: of the script.
        backend: the model.

    Attributes:
        imgsz: (height, width) of the input.
    """

    outputs_class: type[DetectOutputs] = DetectOutputs
    stages: Sequence[str] = STAGES  # names of what is timed

    def __init__(self, options: DetectOptions, backend: Backend) -> None:
        self.options = options
        self.backend = backend
        self.imgsz = self.input_size()

    def input_size(self) -> tuple[int, int]:
        """Return (height, width) of the input, after checking the options that need the model.

        Raises:
            ConfigError: an option that does not fit the model.
        """
        names = self.backend.names
        last = max(names, default=0)
        if wrong := [index for index in self.options.classes or [] if index > last]:
            raise ConfigError(f"--classes {wrong[0]}: the model's classes are 0-{last} ({names[last]})")
        height, width = check_img_size(self.options.imgsz, stride=self.backend.stride)
        return height, width

    def prepare(self, item: ImageFile | Frame) -> Prepared:
        """Read an image file, and make its image for the model."""
        return prepare_frame(item, self.imgsz, self.backend.stride, auto=self.backend.pt)

    def predict(self, outputs: DetectOutputs, batch: Sequence[Prepared]) -> list[FrameResult]:
        """Run the model on frames of one input shape; called by several threads at a time."""
        o, backend = self.options, self.backend
        watch = feature_saver(outputs.feature_folder(batch[0].frame)) if o.visualize else None
        clocks = [Stopwatch(backend.device) for _ in STAGES]
        with torch.inference_mode():
            with clocks[0]:
                images = to_tensor([item.letterboxed for item in batch], backend.device, backend.fp16)
            with clocks[1]:
                decoded, protos = self.outputs_of(backend(images, augment=o.augment, visualize=watch))
            with clocks[2]:
                boxes = non_max_suppression(
                    decoded,
                    o.conf_thres,
                    o.iou_thres,
                    o.classes,
                    o.agnostic_nms,
                    max_det=o.max_det,
                    nm=0 if protos is None else protos.shape[1],
                )
            seconds = tuple(clock.total / len(batch) for clock in clocks)
            each = [None] * len(batch) if protos is None else protos
            return [self._result(*one, seconds) for one in zip(batch, boxes, each, strict=True)]

    def outputs_of(self, output: Any) -> tuple[Tensor, Tensor | None]:
        """Return the decoded boxes, and the mask prototypes, if there are any."""
        return output, None

    def masks(
        self,
        protos: Tensor | None,
        detections: Tensor,
        input_hw: tuple[int, int],
        rows: np.ndarray,
        image_hw: tuple[int, int],
    ) -> FrameMasks | None:
        """Return the masks of a frame; None for boxes only. See `FrameMasks.of`."""
        return None

    def describe(self, result: FrameResult) -> str:
        """Return what was found in a frame, for its log line."""
        return describe_classes(result.rows[:, 5], self.backend.names)

    def _result(
        self, item: Prepared, detections: Tensor, protos: Tensor | None, seconds: tuple[float, ...]
    ) -> FrameResult:
        """Scale boxes from the input of the model to whole pixels of the frame's image; make the masks."""
        height, width = item.letterboxed.shape[:2]
        image_hw = item.frame.image.shape[0], item.frame.image.shape[1]
        scaled = scale_boxes((height, width), detections[:, :4].clone(), image_hw)
        rows = torch.cat((scaled, detections[:, 4:6]), 1).float().cpu().numpy().astype(np.float64)
        rows[:, :4] = rows[:, :4].round()
        masks = self.masks(protos, detections, (height, width), rows, image_hw)
        return FrameResult(item.frame, rows, (height, width), seconds, masks)


def prepare_frame(item: ImageFile | Frame, imgsz: tuple[int, int], stride: int, auto: bool) -> Prepared:
    """Read an image file, and letterbox the image; see `letterbox`."""
    frame = item.read() if isinstance(item, ImageFile) else item
    return Prepared(frame, letterbox(frame.image, imgsz, auto=auto, stride=stride)[0])


def feature_saver(folder: Path) -> LayerCallback:
    """Return a function that a model calls with each layer and its output, to save feature maps."""
    from utils.plots.figure import plot_features

    def save(layer: Any, output: Any) -> None:
        plot_features(output, layer.type, layer.i, folder)

    return save
