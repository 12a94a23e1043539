"""Served detection and segmentation models: boxes, and masks as polygons or run lengths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from serve.params import DetectionParams, read_classes, read_fraction, read_mask_format
from serve.served_model import InferenceTask, Result, Row, ServedModel
from utils.base.timing import Stopwatch
from utils.data.letterbox import check_img_size, letterbox
from utils.ops.boxes import scale_boxes
from utils.ops.nms import non_max_suppression
from utils.plots.annotator import Annotator, colors
from utils.tasks.segment.prediction import FrameMasks


@dataclass(frozen=True)
class DetectionResult(Result):
    """Detections of one image.

    Attributes beside those of `Result`:
        detections: (n, 6), xyxy in pixels of the original image, confidence, class; best first.
        params: of the request.
        masks: of these detections; None of a detection model, or if the request asks for none.
    """

    detections: np.ndarray
    params: DetectionParams
    masks: FrameMasks | None = None

    @property
    def row_stage(self) -> str:
        return "" if self.masks is None else "masks"

    @property
    def thresholds(self) -> dict[str, float]:
        return {"conf": self.params.conf, "iou": self.params.iou}

    def rows(self, names: Mapping[int, str]) -> list[Row]:
        """Return corners in pixels, confidence, class number and name, and the mask if there is one."""
        rows: list[Row] = []
        for (*corners, confidence, class_index), mask in zip(
            self.detections.tolist(), self._encode_masks(), strict=True
        ):
            xmin, ymin, xmax, ymax = (round(value, 3) for value in corners)
            index = int(class_index)
            row: Row = {"xmin": xmin, "ymin": ymin, "xmax": xmax, "ymax": ymax}
            row |= {"confidence": round(confidence, 5), "class": index, "name": names.get(index, str(index))}
            rows.append(row | mask)
        return rows

    def draw(self, image: np.ndarray, names: Mapping[int, str]) -> np.ndarray:
        """Draw masks and labelled boxes."""
        if self.masks is not None:
            self.masks.blend(image, [colors(int(index), bgr=True) for index in self.detections[:, 5]])
        annotator = Annotator(np.ascontiguousarray(image))
        for *xyxy, confidence, class_index in self.detections[::-1].tolist():  # most confident on top
            index = int(class_index)
            annotator.box_label(xyxy, f"{names.get(index, index)} {confidence:.2f}", colors(index, bgr=True))
        return annotator.result()

    def _encode_masks(self) -> list[Row]:
        """Return what the rows of a segmentation model contain in addition: `polygon` or `rle`."""
        if self.masks is None:
            return [{} for _ in self.detections]
        key = self.params.masks
        if key == "rle":
            return [{key: one} for one in self.masks.run_lengths()]
        size = self.masks.image_hw[::-1]  # points are fractions of it
        found = self.masks.polygons()
        return [{key: (points.astype(np.float64) * size).round(2).tolist()} for points in found]


class ServedDetector(ServedModel[DetectionParams]):
    """A detection or segmentation model."""

    routes: ClassVar[tuple[str, str]] = ("object-detection", "detect")
    rows_key: ClassVar[str] = "detections"
    parameters: ClassVar[tuple[str, ...]] = ("conf", "iou", "imgsz", "classes", "masks", "format")

    @property
    def segments(self) -> bool:
        """Whether it is a segmentation model."""
        return self.backend.task == "segment"

    def prepare(self, image: np.ndarray, params: DetectionParams) -> InferenceTask[DetectionParams]:
        """Letterbox an image as `detect.py` does: to a rectangle where the model takes any size."""
        stride = self.backend.stride
        side = -(-params.imgsz // stride) * stride
        shape = self._shape if self.fixed else (side, side)
        boxed = letterbox(image, shape, auto=self.backend.pt, stride=stride)[0]
        return InferenceTask(boxed, (image.shape[0], image.shape[1]), params)

    def _rounded(self, imgsz: int) -> int:
        side = check_img_size(imgsz, self.backend.stride)
        assert isinstance(side, int)
        return side

    def _params(self, given: Mapping[str, str], imgsz: int, response_format: str) -> DetectionParams:
        options = self.options
        return DetectionParams(
            imgsz,
            response_format,
            conf=read_fraction("conf", given.get("conf", str(options.conf_thres))),
            iou=read_fraction("iou", given.get("iou", str(options.iou_thres))),
            classes=read_classes(given["classes"], self.backend.names) if "classes" in given else None,
            masks=read_mask_format(given.get("masks", "polygon" if self.segments else "none"), self.segments),
        )

    def _results(
        self, output: Any, tasks: Sequence[InferenceTask[DetectionParams]], inference: float
    ) -> list[Result]:
        """Run NMS on each image with its own thresholds."""
        decoded, protos = output if self.segments else (output, [None] * len(tasks))
        return [
            self._suppress(decoded[index : index + 1], protos[index], task, len(tasks), inference)
            for index, task in enumerate(tasks)
        ]

    def _suppress(
        self,
        decoded: Tensor,
        protos: Tensor | None,
        task: InferenceTask[DetectionParams],
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
                max_det=self.options.max_det,
                nm=0 if protos is None else len(protos),
            )
            rows = kept.cpu()
            detections = rows[:, :6].numpy().astype(np.float64)
            scale_boxes((height, width), detections[:, :4], task.original_hw)
        masks = None
        if protos is not None and params.masks != "none":
            masks = FrameMasks(protos.cpu(), rows, (height, width), task.original_hw)
        seconds = {"inference": inference, "nms": clock.total}
        return DetectionResult(batch_size, seconds, detections, params, masks)
