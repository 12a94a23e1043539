"""Detections of AutoShape: to print, show, save, crop, and convert to tables."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from torch import Tensor

from models.autoshape.results import Results, import_package
from utils.base.log import LOG
from utils.base.names import UniqueNames, describe_classes, safe_name
from utils.base.paths import claim_folder
from utils.base.timing import Stopwatch
from utils.ops.boxes import xyxy2xywh
from utils.plots.annotator import Annotator, colors, crop_box, write_image
from utils.tasks.segment.prediction import FrameMasks

if TYPE_CHECKING:
    import pandas
    import supervision

CORNERS = ("xmin", "ymin", "xmax", "ymax", "confidence", "class", "name")
CENTRES = ("xcenter", "ycenter", "width", "height", "confidence", "class", "name")


class Detections(Results):
    """Detections of one call to `AutoShape`, a tensor for each image.

    Attributes beside those of `Results`:
        pred: per image (n, 6) x1, y1, x2, y2 in pixels, confidence, class; the most confident first.
        masks: per image (n, H, W) bool, at the size of the image; an empty list for boxes only.
        polygons: per image a list of n polygons (k, 2) in pixels: the largest part of each mask.
    """

    def __init__(
        self,
        ims: list[np.ndarray],
        pred: list[Tensor],
        files: list[str],
        times: Sequence[Stopwatch] = (),
        names: dict[int, str] | None = None,
        shape: tuple[int, ...] = (),
        frame_masks: Sequence[FrameMasks] = (),
    ) -> None:
        super().__init__(ims, files, times, names, shape)
        self.pred = pred
        self._frame_masks = list(frame_masks)

    @cached_property
    def masks(self) -> list[np.ndarray]:
        """Per image (n, H, W) bool, from a segmentation model."""
        return [each.on_image().astype(bool) for each in self._frame_masks]

    @cached_property
    def polygons(self) -> list[list[np.ndarray]]:
        """Per image a polygon (k, 2) float32 in pixels for each mask; k = 0 for an empty mask."""
        sizes = [np.array(each.image_hw[::-1], np.float32) for each in self._frame_masks]
        pairs = zip(self._frame_masks, sizes, strict=True)
        return [[points * size for points in each.polygons()] for each, size in pairs]

    @property
    def xyxy(self) -> list[Tensor]:
        """Per image (n, 6): x1, y1, x2, y2 in pixels, confidence, class."""
        return self.pred

    @cached_property
    def xywh(self) -> list[Tensor]:
        """Per image (n, 6): centre, width and height in pixels, confidence, class."""
        return [xyxy2xywh(rows) for rows in self.pred]

    @cached_property
    def xyxyn(self) -> list[Tensor]:
        """Per image (n, 6): x1, y1, x2, y2 normalized, confidence, class."""
        return self._normalized(self.pred)

    @cached_property
    def xywhn(self) -> list[Tensor]:
        """Per image (n, 6): centre, width and height normalized, confidence, class."""
        return self._normalized(self.xywh)

    def _normalized(self, boxes: list[Tensor]) -> list[Tensor]:
        sizes = [(w, h, w, h, 1, 1) for h, w in (image.shape[:2] for image in self.ims)]
        return [rows / rows.new_tensor(size) for rows, size in zip(boxes, sizes, strict=True)]

    def single(self, index: int, image: np.ndarray) -> Detections:
        masks = self._frame_masks[index : index + 1]
        rows, file = self.pred[index], self.files[index]
        return Detections([image], [rows], [file], self.times, self.names, self.s, masks)

    def describe(self, index: int) -> str:
        """Return the number of objects by class."""
        return describe_classes(self.pred[index][:, 5].tolist(), self.names)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.n} images, {sum(map(len, self.pred))} boxes>"

    def crop(
        self, save: bool = True, save_dir: str | Path | None = None, exist_ok: bool = False
    ) -> list[dict[str, Any]]:
        """Crop every box from its image, with a margin.

        Args:
            save: write crops/CLASS/FILE.jpg below `save_dir`.
            save_dir: the folder; if it exists, the first free one of exp2, exp3, ... By default `folder`.
            exist_ok: write to it even if it exists.

        Returns:
            For each box, image by image: `box` (4,) xyxy in pixels, `conf`, `cls`, `label`, and the crop
            `im`, RGB.
        """
        folder = claim_folder(Path(save_dir or self.folder), exist_ok) if save else Path()
        names, crops = UniqueNames(), []
        for image, rows, file in zip(self.originals(), self.pred, self.files, strict=True):
            for row in rows:
                name = self._name(row[5])
                crop = crop_box(row[:4].tolist(), image).copy()
                crops.append(
                    {
                        "box": row[:4],
                        "conf": row[4],
                        "cls": row[5],
                        "label": f"{name} {row[4]:.2f}",
                        "im": crop,
                    }
                )
                if save and crop.size:
                    path = names.unique_path(folder / "crops" / safe_name(name) / file)
                    write_image(path, cv2.cvtColor(crop, cv2.COLOR_RGB2BGR), full_chroma=True)
        if save:
            LOG.info(f"Saved {len(crops)} crops to {folder}")
        return crops

    def pandas(self) -> Tables:
        """Return the detections as data frames: `results.pandas().xyxy[0]`."""
        return Tables(self)

    def to_supervision(self) -> list[supervision.Detections]:
        """Return a `supervision.Detections` for each image, with masks; class names are in its `data`."""
        sv = import_package("supervision", "results.to_supervision()")
        results = []
        for index, rows in enumerate(self.pred):
            array = rows.detach().cpu().numpy()
            classes = array[:, 5].astype(int)
            names = np.array([self._name(index) for index in classes], dtype=str)
            results.append(
                sv.Detections(
                    array[:, :4],
                    mask=self.masks[index] if self._frame_masks else None,
                    confidence=array[:, 4],
                    class_id=classes,
                    data={"class_name": names},
                )
            )
        return results

    def draw(self, index: int, image: np.ndarray, labels: bool) -> None:
        """Draw masks and boxes, the most confident last."""
        rows = self.pred[index].tolist()
        if self._frame_masks:
            self._frame_masks[index].blend(image, [colors(int(row[5]), bgr=True) for row in rows])
        annotator = Annotator(image)
        for row in rows[::-1]:
            label = f"{self._name(row[5])} {row[4]:.2f}" if labels else ""
            annotator.box_label(row[:4], label, colors(int(row[5]), bgr=True))


class Tables:
    """Detections as lists of `pandas.DataFrame`, one per image, made on first use."""

    def __init__(self, results: Detections) -> None:
        self._results = results
        self._pandas = import_package("pandas", "results.pandas()")

    @cached_property
    def xyxy(self) -> list[pandas.DataFrame]:
        """Data frames with columns CORNERS, in pixels."""
        return [self._table(rows, CORNERS) for rows in self._results.xyxy]

    @cached_property
    def xyxyn(self) -> list[pandas.DataFrame]:
        """Data frames with columns CORNERS, normalized."""
        return [self._table(rows, CORNERS) for rows in self._results.xyxyn]

    @cached_property
    def xywh(self) -> list[pandas.DataFrame]:
        """Data frames with columns CENTRES, in pixels."""
        return [self._table(rows, CENTRES) for rows in self._results.xywh]

    @cached_property
    def xywhn(self) -> list[pandas.DataFrame]:
        """Data frames with columns CENTRES, normalized."""
        return [self._table(rows, CENTRES) for rows in self._results.xywhn]

    def _table(self, rows: Tensor, columns: tuple[str, ...]) -> pandas.DataFrame:
        array = rows.detach().cpu().double().numpy()
        classes = array[:, 5].astype(int)
        names = [self._results._name(index) for index in classes]
        values = [*array[:, :5].T, classes, self._pandas.Series(names, dtype="str")]
        return self._pandas.DataFrame(dict(zip(columns, values, strict=True)))
