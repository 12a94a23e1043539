"""Write down what was detected, picture by picture: label files and a COCO json."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from utils.base.log import LOG
from utils.base.paths import atomic_write
from utils.ops.boxes import xyxy2xywh, xyxy2xywhn


class LabelWriter:
    """One text file a picture, `class x y w h [confidence]` a line, as fractions of the picture.

    A file is written whole, so a second run into the same folder replaces it. A picture in which
    nothing is found has no file. Pictures of one name in different folders get stem.txt, stem_2.txt...
    """

    def __init__(self, folder: Path, with_confidence: bool = False) -> None:
        self.folder = folder
        self.with_confidence = with_confidence
        self._used: dict[str, int] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, path: Path, detections: Tensor, size_hw: tuple[int, int]) -> None:
        """Write one picture's `detections` (n, 6) in pixels of a picture of (height, width) `size_hw`."""
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
        LOG.warning(
            f"several pictures are called {path.stem}: labels of {path} are in {path.stem}_{count}.txt"
        )
        return f"{path.stem}_{count}"


class JsonWriter:
    """Rows of a COCO results file: image_id, category_id, bbox (left, top, width, height), score."""

    def __init__(self, class_ids: tuple[int, ...] | None = None) -> None:
        self.class_ids = class_ids
        self.rows: list[dict[str, object]] = []

    def add(self, path: Path, detections: Tensor) -> None:
        """Add one picture's `detections` (n, 6) in its own pixels."""
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
    """COCO names its pictures by number: the number if the stem is one, else the stem."""
    return int(path.stem) if path.stem.isdecimal() else path.stem
