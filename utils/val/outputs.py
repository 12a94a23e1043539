"""Files that a validation writes: labels, COCO json, plots."""

from __future__ import annotations

import json
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.ops.boxes import xyxy2xywh, xyxy2xywhn
from utils.plots.batches import output_to_target, plot_images
from utils.plots.curves import plot_confusion_matrix, plot_mc_curve, plot_pr_curve
from utils.plots.figure import new_figure
from utils.val.coco_json import COCO_IDS, coco_scores, find_annotations

if TYPE_CHECKING:
    import numpy as np

    from utils.data.dataset_yaml import DataSpec
    from utils.ops.metrics import APResult
    from utils.val.accumulator import EvalResult


class LabelWriter:
    """One text file an image, `class x y w h [confidence]` a line, as fractions of the image.

    A file is written whole, so a second run into the same folder replaces it. An image in which
    nothing is found has no file. Images of one name in different folders get stem.txt, stem_2.txt...
    """

    def __init__(self, folder: Path, with_confidence: bool = False) -> None:
        self.folder = folder
        self.with_confidence = with_confidence
        self._used: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, path: Path, detections: Tensor, size_hw: tuple[int, int]) -> None:
        """Write one image's `detections` (n, 6) in pixels of an image of (height, width) `size_hw`."""
        file = self.folder / f"{self._free_stem(path)}.txt"
        if not len(detections):
            file.unlink(missing_ok=True)  # left by an earlier run into this folder
            return
        boxes = xyxy2xywhn(detections[:, :4], w=size_hw[1], h=size_hw[0])
        columns = [detections[:, 5:6], boxes]
        if self.with_confidence:
            columns.append(detections[:, 4:5])
        rows = torch.cat(columns, 1).tolist()
        file.write_text("".join(" ".join(f"{value:g}" for value in row) + "\n" for row in rows))

    def _free_stem(self, path: Path) -> str:
        count = self._used[path.stem] = self._used.get(path.stem, 0) + 1
        if count == 1:
            return path.stem
        LOG.warning(f"several images are called {path.stem}: labels of {path} are in {path.stem}_{count}.txt")
        return f"{path.stem}_{count}"


class JsonWriter:
    """Rows of a COCO results file: image_id, category_id, bbox (left, top, width, height), score."""

    def __init__(self, class_ids: tuple[int, ...] | None = None) -> None:
        self.class_ids = class_ids
        self.rows: list[dict[str, object]] = []

    def add(self, path: Path, detections: Tensor) -> None:
        """Add one image's `detections` (n, 6) in its own pixels."""
        image_id = image_id_of(path)
        boxes = xyxy2xywh(detections[:, :4])
        boxes[:, :2] -= boxes[:, 2:] / 2
        for box, (score, index) in zip(boxes.tolist(), detections[:, 4:6].tolist(), strict=True):
            self.rows.append(
                {
                    "image_id": image_id,
                    "category_id": self.class_ids[int(index)] if self.class_ids else int(index),
                    "bbox": [round(value, 3) for value in box],
                    "score": round(score, 5),
                }
            )

    def save(self, path: Path) -> None:
        """Write all rows to `path`."""
        with atomic_write(path, "w", encoding="utf-8") as file:
            json.dump(self.rows, file)


def image_id_of(path: Path) -> int | str:
    """COCO names its images by number: the number if the stem is one, else the stem."""
    return int(path.stem) if path.stem.isdecimal() else path.stem


BATCHES = 3  # so many are drawn
PER_IMAGE = 15  # boxes with the highest confidence; more would hide the image


class ValPlots:
    """Draw into `folder`, in a thread beside the work; `finish` waits and reports what went wrong."""

    def __init__(self, folder: Path, names: dict[int, str]) -> None:
        self.folder = folder
        self.names = names
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="images")
        self._pending: list[Future[Any]] = []
        self._draw(new_figure, 1, 1)  # loads matplotlib while the model works

    def batch(
        self, index: int, images: Tensor, targets: Tensor, paths: Sequence[str], detections: list[Tensor]
    ) -> None:
        """Draw one of the first batches; `images` uint8, `targets` (T, 6), `detections` B x (n, 6)."""
        if index >= BATCHES:
            return
        stem = self.folder / f"val_batch{index}"
        found = output_to_target(detections, PER_IMAGE)
        self._draw(plot_images, images, targets, paths, f"{stem}_labels.jpg", self.names)
        self._draw(plot_images, images, found, paths, f"{stem}_pred.jpg", self.names)

    def finish(self, ap: APResult | None, confusion: np.ndarray) -> None:
        """Draw the curves and the matrix, and wait for all that is being drawn."""
        names = list(self.names.values())
        self._draw(plot_confusion_matrix, confusion, self.folder / "confusion_matrix.png", names)
        self._curves(ap)
        for pending in self._pending:
            pending.result()

    def close(self) -> None:
        """Drop what is not drawn yet."""
        self._thread.shutdown(cancel_futures=True)

    def _curves(self, ap: APResult | None) -> None:
        px = np.linspace(0, 1, 1000) if ap is None else ap.px
        none = np.zeros((0, len(px)))  # nothing found: empty plots rather than those of an earlier run
        names = [] if ap is None else [self.names[int(index)] for index in ap.classes]
        pr, scores = (none, np.zeros((0, 10))) if ap is None else (ap.prec_values, ap.ap)
        self._draw(plot_pr_curve, px, pr, scores, self.folder / "PR_curve.png", names)
        for letter, label in (("f1", "F1"), ("p", "Precision"), ("r", "Recall")):
            curve = none if ap is None else getattr(ap, f"{letter}_curve")
            path = self.folder / f"{letter.upper()}_curve.png"
            self._draw(plot_mc_curve, px, curve, path, names, ylabel=label)

    def _draw(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self._pending.append(self._thread.submit(function, *args, **kwargs))


@dataclass(frozen=True)
class OutputOptions:
    """What to write; the fields are the arguments of `evaluate`."""

    save_dir: Path | None = None
    plots: bool = False
    save_txt: bool = False
    save_hybrid: bool = False
    save_conf: bool = False
    save_json: bool = False
    json_stem: str = "model"
    data: DataSpec | None = None

    def folder(self) -> Path:
        """The folder to write into."""
        if self.save_dir is None:
            raise ConfigError("evaluate: plots and save_... need a save_dir")
        return self.save_dir


class EvalOutputs:
    """Pass what is found to those who write it; nothing is opened that isn't options."""

    def __init__(self, options: OutputOptions, names: dict[int, str]) -> None:
        self.options = options
        is_coco = options.data is not None and options.data.is_coco
        self.labels = (
            LabelWriter(options.folder() / "labels", options.save_conf)
            if options.save_txt or options.save_hybrid
            else None
        )
        self.json = JsonWriter(COCO_IDS if is_coco else None) if options.save_json else None
        self.plots = ValPlots(options.folder(), names) if options.plots else None
        self._image_ids: list[int | str] = []

    def batch(
        self, index: int, images: Tensor, targets: Tensor, paths: Sequence[str], detections: list[Tensor]
    ) -> None:
        """Take a batch as the loader delivered it, and its detections in pixels of the batch."""
        if self.plots is not None:
            self.plots.batch(index, images, targets, paths, detections)

    def image(self, path: Path, detections: Tensor, size_hw: tuple[int, int]) -> None:
        """Take one image's `detections` (n, 6) in its own pixels."""
        self._image_ids.append(image_id_of(path))
        if self.labels is not None:
            self.labels.add(path, detections, size_hw)
        if self.json is not None:
            self.json.add(path, detections)

    def finish(self, result: EvalResult, confusion: np.ndarray | None) -> EvalResult:
        """Write what needs all images; COCO's own scores replace mAP50 and mAP50-95 in the result."""
        if self.plots is not None and confusion is not None:
            self.plots.finish(result.ap, confusion)
        return self._save_json(self.json, result) if self.json is not None else result

    def close(self) -> None:
        """Stop drawing, whatever has happened."""
        if self.plots is not None:
            self.plots.close()

    def _save_json(self, json: JsonWriter, result: EvalResult) -> EvalResult:
        path = self.options.folder() / f"{self.options.json_stem}_predictions.json"
        json.save(path)
        LOG.info(f"{len(json.rows)} detections saved to {path}")
        data = self.options.data
        if data is None or not data.is_coco:
            return result
        annotations = find_annotations(data.root)
        if annotations is None:
            LOG.warning(f"no COCO scores: annotations/instances_val2017.json is not below {data.root}")
            return result
        scores = coco_scores(path, annotations, self._image_ids)
        return result if scores is None else replace(result, map=scores[0], map50=scores[1])
