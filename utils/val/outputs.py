"""Files that a validation writes: labels, a COCO results file, plots."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.names import UniqueNames
from utils.base.paths import atomic_write, write_bytes
from utils.ops.boxes import xyxy2xywh, xyxy2xywhn
from utils.ops.metrics import ConfusionMatrix
from utils.plots.batches import SUBPLOTS, output_to_target, plot_images
from utils.plots.curves import plot_confusion_matrix, plot_mc_curve, plot_pr_curve
from utils.plots.painter import Painter, start
from utils.val.coco_scores import coco_scores

if TYPE_CHECKING:
    from utils.data.loader import Batch
    from utils.ops.precision import APResult
    from utils.val.accumulator import EvalResult
    from utils.val.coco_truth import CocoTruth

PLOTTED_BATCHES = 3
PLOTTED_BOXES = 15  # per image, those with the highest confidence; more would hide the image


@dataclass(frozen=True)
class OutputOptions:
    """Files to write into a folder."""

    folder: Path
    plots: bool = False  # the first three batches, the curves and the confusion matrix
    save_txt: bool = False  # labels/*.txt
    save_conf: bool = False  # with the confidence in these files
    save_json: bool = False  # <json_stem>_predictions.json
    json_stem: str = "model"
    stems: Collection[str] = ()  # of all images: names that no numbered label file takes
    truth: CocoTruth | None = None  # annotations that the COCO tools score the json file against


class EvalOutputs:
    """Writers of all files that the options ask for; without options nothing is written."""

    def __init__(self, options: OutputOptions | None, names: dict[int, str]) -> None:
        self.options = options
        self.labels: LabelWriter | None = None
        self.json: JsonWriter | None = None
        self.plots: ValPlots | None = None
        if options is None:
            return
        if options.save_txt:
            self.labels = LabelWriter(options.folder / "labels", options.save_conf, options.stems)
        if options.save_json:
            self.json = JsonWriter(options.truth)
        if options.plots:
            self.plots = ValPlots(options.folder, names)

    def batch(self, index: int, batch: Batch, detections: list[Tensor]) -> None:
        """Add a batch as the loader made it, and its detections in pixels of the batch."""
        if self.plots is not None:
            self.plots.batch(index, batch, detections)

    def image(self, batch: Batch, index: int, detections: Tensor, labels: Tensor) -> None:
        """Add the `detections` (n, 6) and `labels` (m, 5) of one image of a batch, in its own pixels."""
        path, shapes = Path(batch.paths[index]), batch.shapes[index]
        if self.labels is not None and shapes is not None:
            self.labels.add(path, detections, shapes[0])  # programs give plain tuples
        if self.json is not None:
            self.json.add(path, detections)
        if self.plots is not None:
            self.plots.confusion.process_batch(detections, labels)

    def finish(self, result: EvalResult) -> EvalResult:
        """Write what needs all images. Scores of the COCO tools replace mAP50 and mAP50-95 in the result."""
        if self.plots is not None:
            self.plots.finish({"": result.ap})
        scores = self.save_json("bbox")
        return result if scores[0] is None else replace(result, map=scores[0][0], map50=scores[0][1])

    def save_json(self, *kinds: str) -> list[tuple[float, float] | None]:
        """Write the json file; return the COCO scores (mAP50-95, mAP50) of each kind, bbox or segm.

        They are None where there is no json file, or nothing to compare it with.
        """
        nothing: list[tuple[float, float] | None] = [None] * len(kinds)
        if self.json is None or self.options is None:
            return nothing
        path = self.options.folder / f"{self.options.json_stem}_predictions.json"
        self.json.save(path)
        truth = self.options.truth
        if truth is None:
            return nothing
        if not self.json.rows:
            LOG.warning(f"no detections, so the COCO scores against {truth.file} are 0")
            return [(0.0, 0.0)] * len(kinds)
        ids, single_cls = self.json.image_ids, truth.single_cls
        try:
            return [coco_scores(path, truth.file, ids, kind, single_cls=single_cls) for kind in kinds]
        except DataError as error:
            if truth.required:
                raise
            LOG.warning(str(error))
            return nothing

    def close(self) -> None:
        """Stop drawing; called after errors, too."""
        if self.plots is not None:
            self.plots.close()


class LabelWriter:
    """Writer of a text file per image, with a line `class x y w h [confidence]` per detection.

    A line of a mask is `class x1 y1 x2 y2 ... [confidence]`, its polygon. Coordinates are fractions of the
    image. A later run into the same folder replaces the files; an image without detections has none. Images
    of one name in different folders get cat.txt, cat2.txt, ...
    """

    def __init__(self, folder: Path, with_confidence: bool = False, stems: Collection[str] = ()) -> None:
        self.folder = folder
        self.with_confidence = with_confidence
        self._names = UniqueNames(reserved=stems)
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, path: Path, detections: Tensor, size_hw: tuple[int, int]) -> None:
        """Write the `detections` (n, 6) of one image, in pixels of its (height, width) `size_hw`."""
        boxes = xyxy2xywhn(detections[:, :4], w=size_hw[1], h=size_hw[0])
        columns = [detections[:, 5:6], boxes]
        if self.with_confidence:
            columns.append(detections[:, 4:5])
        rows = torch.cat(columns, 1).tolist()
        self.write(path, [" ".join(f"{value:g}" for value in row) for row in rows])

    def write(self, path: Path, lines: Sequence[str]) -> None:
        """Write the lines of the image at `path`; without lines there is no file."""
        name = self._names.unique(path.stem)
        if name != path.stem:
            LOG.warning(f"several images are called {path.stem}: labels of {path} are in {name}.txt")
        file = self.folder / f"{name}.txt"
        if not lines:
            file.unlink(missing_ok=True)  # of an earlier run into this folder
            return
        write_bytes(file, "".join(f"{line}\n" for line in lines).encode())


class ValPlots:
    """Plots of a validation, drawn into `folder` meanwhile; `finish` waits and raises errors."""

    def __init__(self, folder: Path, names: dict[int, str]) -> None:
        self.folder = folder
        self.names = names
        self.confusion = ConfusionMatrix(len(names))
        self._painter = Painter()
        start()

    def batch(
        self,
        index: int,
        batch: Batch,
        detections: list[Tensor],
        true_masks: Sequence[np.ndarray] = (),
        masks: Sequence[np.ndarray] = (),
    ) -> None:
        """Draw one of the first batches.

        Args:
            index: of the batch.
            batch: as the loader made it.
            detections: B x (n, 6+) in pixels of the batch.
            true_masks: B x (m, h, w) masks of the labels, or none.
            masks: B x (k, h, w) masks of the first k detections, or none.
        """
        if index >= PLOTTED_BATCHES:
            return
        predicted = output_to_target(detections[:SUBPLOTS], PLOTTED_BOXES)
        images, paths = batch.images[:SUBPLOTS], batch.paths
        for kind, rows, shapes in (("labels", batch.targets, true_masks), ("pred", predicted, masks)):
            file = self.folder / f"val_batch{index}_{kind}.jpg"
            self._painter.draw(plot_images, images, rows, paths, file, self.names, masks=shapes[:SUBPLOTS])

    def finish(self, aps: Mapping[str, APResult | None]) -> None:
        """Draw the curves and the confusion matrix, and wait until everything is drawn.

        `aps` holds the results by the prefix of their files, such as Box and Mask.
        """
        names = list(self.names.values())
        file = self.folder / "confusion_matrix.png"
        self._painter.draw(plot_confusion_matrix, self.confusion.matrix, file, names)
        for prefix, ap in aps.items():
            self._curves(ap, prefix)
        self._painter.rest()
        self._painter.wait()

    def close(self) -> None:
        """Drop what is not drawn yet."""
        self._painter.close()

    def _curves(self, ap: APResult | None, prefix: str) -> None:
        px = np.linspace(0, 1, 1000) if ap is None else ap.px
        none = np.zeros((0, len(px)))  # empty plots, which replace those of an earlier run
        names = [] if ap is None else [self.names[int(index)] for index in ap.classes]
        pr, scores = (none, np.zeros((0, 10))) if ap is None else (ap.prec_values, ap.ap)
        self._painter.draw(plot_pr_curve, px, pr, scores, self.folder / f"{prefix}PR_curve.png", names)
        for letter, label in (("f1", "F1"), ("p", "Precision"), ("r", "Recall")):
            curve = none if ap is None else getattr(ap, f"{letter}_curve")
            path = self.folder / f"{prefix}{letter.upper()}_curve.png"
            self._painter.draw(plot_mc_curve, px, curve, path, names, ylabel=label)


class JsonWriter:
    """Rows of a COCO results file: image_id, category_id, bbox (left, top, width, height), score.

    Args:
        truth: annotations with the ids of images and classes; what has none there is not in the file. By
            default the id of an image is its name, and that of a class its number.
    """

    def __init__(self, truth: CocoTruth | None = None) -> None:
        self.truth = truth
        self.image_ids: list[int | str] = []
        self.rows: list[dict[str, object]] = []

    def add(
        self, path: Path, detections: Tensor, segmentations: Sequence[dict[str, Any]] | None = None
    ) -> None:
        """Add the `detections` (n, 6) of one image, in its own pixels, and the RLE of their masks."""
        image_id = self._image_id(path)
        if image_id is None:
            return
        self.image_ids.append(image_id)
        boxes = xyxy2xywh(detections[:, :4])
        boxes[:, :2] -= boxes[:, 2:] / 2
        scores = detections[:, 4:6].tolist()
        for number, (box, (score, index)) in enumerate(zip(boxes.tolist(), scores, strict=True)):
            category = int(index) if self.truth is None else self.truth.category_ids[int(index)]
            if category is None:
                continue
            row: dict[str, object] = {
                "image_id": image_id,
                "category_id": category,
                "bbox": [round(value, 3) for value in box],
                "score": round(score, 5),
            }
            if segmentations is not None:
                row["segmentation"] = segmentations[number]
            self.rows.append(row)

    def save(self, path: Path) -> None:
        """Write all rows to `path`."""
        with atomic_write(path, "w", encoding="utf-8") as file:
            json.dump(self.rows, file)
        LOG.info(f"{len(self.rows)} detections saved to {path}")

    def _image_id(self, path: Path) -> int | str | None:
        if self.truth is not None:
            return self.truth.image_ids.get(str(path))
        # COCO's image ids are numbers, and the names of its files.
        return int(path.stem) if path.stem.isdecimal() else path.stem
