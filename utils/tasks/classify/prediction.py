"""Classify the frames of a source: the five most probable classes of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from utils.base.paths import write_bytes
from utils.base.timing import STAGES, Stopwatch
from utils.data.letterbox import to_tensor
from utils.predict.predictor import FrameResult, Predictor, Prepared, feature_saver
from utils.predict.writers import DetectOutputs, frame_number
from utils.sources.frame import Frame
from utils.sources.source import ImageFile
from utils.tasks.classify.sizes import check_size
from utils.tasks.classify.top import caption_lines, describe_top, draw_lines, top_classes
from utils.tasks.classify.transforms import center_crop, normalize


class ClassifyOutputs(DetectOutputs):
    """Writer of a run's results: text on images, `labels/*.txt` and predictions.csv."""

    csv_header = ("Image Name", "Rank", "Class", "Prediction", "Probability")

    def label_text(self, rows: np.ndarray) -> list[str]:
        """Return a line for each of the classes `rows` (k, 2): its probability and name."""
        return caption_lines(rows.tolist(), self.names)

    def _write_labels(self, frame: Frame, rows: np.ndarray, masks: object = None) -> None:
        path = self._names.unique_path(self.folder / "labels" / f"{self.frame_stem(frame)}.txt")
        write_bytes(path, "".join(f"{line}\n" for line in self.label_text(rows)).encode())
        self.label_files += 1

    def _write_table(self, frame: Frame, rows: np.ndarray) -> None:
        name = f"{self.image_stem(frame)}{frame_number(frame)}{frame.path.suffix}"
        for rank, (probability, index) in enumerate(rows.tolist(), 1):
            self._table.writerow((name, rank, int(index), self.name(index), f"{probability:.6g}"))

    def _draw(self, image: np.ndarray, rows: np.ndarray) -> None:
        draw_lines(image, self.label_text(rows))


class ClassifyPredictor(Predictor):
    """Classification of frames: centre crop, model, softmax."""

    outputs_class = ClassifyOutputs
    stages = ("pre-process", "inference", "post-process")

    def input_size(self) -> tuple[int, int]:
        """Return --imgsz, of which YOLOv5 uses the first value."""
        side = self.options.imgsz[0]
        check_size(self.backend, side)
        return (side, side)

    def prepare(self, item: ImageFile | Frame) -> Prepared:
        frame = item.read() if isinstance(item, ImageFile) else item
        return Prepared(frame, center_crop(frame.image, self.imgsz[0]))

    def predict(self, outputs: DetectOutputs, batch: Sequence[Prepared]) -> list[FrameResult]:
        backend = self.backend
        watch = feature_saver(outputs.feature_folder(batch[0].frame)) if self.options.visualize else None
        clocks = [Stopwatch(backend.device) for _ in STAGES]
        with torch.inference_mode():
            with clocks[0]:
                images = normalize(
                    to_tensor([item.letterboxed for item in batch], backend.device, backend.fp16)
                )
            with clocks[1]:
                logits = backend(images, visualize=watch)
            with clocks[2]:
                rows = top_classes(logits.float().softmax(1)).cpu().numpy().astype(np.float64)
        seconds = tuple(clock.total / len(batch) for clock in clocks)
        return [
            FrameResult(item.frame, each, self.imgsz, seconds) for item, each in zip(batch, rows, strict=True)
        ]

    def describe(self, result: FrameResult) -> str:
        """Return the classes with their probabilities, the most probable first."""
        return describe_top(result.rows.tolist(), self.backend.names)
