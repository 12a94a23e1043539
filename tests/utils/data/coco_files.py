"""Datasets with COCO annotations that the tests draw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from tests.known import pattern_image

NAMES = ("cell", "plate")
IDS = {"plate": 4, "cell": 30}  # with gaps, and in another order than NAMES


class CocoSet:
    """A dataset in a folder: images with drawn rectangles, annotations, and a data yaml.

    The annotations may be changed before `write`.
    """

    def __init__(self, root: Path, count: int = 6, splits: tuple[str, ...] = ("train", "val")) -> None:
        self.root = root
        self.raw: dict[str, Any] = {}
        self.yaml: dict[str, Any] = {"path": str(root), "annotations": {}}
        for split in splits:
            self.yaml[split] = f"images/{split}"
            self.yaml["annotations"][split] = f"{split}.json"
            self.raw[split] = {
                "images": [],
                "annotations": [],
                "categories": [{"id": number, "name": name} for name, number in IDS.items()],
            }
            for number in range(count):
                self._draw(split, number)

    def _draw(self, split: str, number: int) -> None:
        height, width = 60 + 4 * number, 80
        image = np.ascontiguousarray(pattern_image(height, width, 40 * number) // 4)
        entries, name = self.raw[split], f"{number:03d}.png"
        for which, (x, y, w, h) in enumerate(((8, 6, 24, 30), (40 + number, 20, 20, 16))):
            cv2.rectangle(image, (x, y), (x + w - 1, y + h - 1), (250, 250 * which, 0), -1)
            entries["annotations"].append(
                {
                    "id": len(entries["annotations"]) + 1,
                    "image_id": 100 + number,
                    "category_id": IDS[NAMES[which]],
                    "bbox": [x, y, w, h],
                    "area": w * h,
                    "iscrowd": 0,
                    "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]],
                }
            )
        entries["images"].append({"id": 100 + number, "file_name": name, "width": width, "height": height})
        path = self.images(split) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode(".png", image)[1].tobytes())

    def images(self, split: str) -> Path:
        """Return the folder of the images of a split."""
        return self.root / "images" / split

    def write(self) -> Path:
        """Write the annotations and the data yaml; return the path of the yaml."""
        for split, raw in self.raw.items():
            (self.root / f"{split}.json").write_text(json.dumps(raw), encoding="utf-8")
        path = self.root / "data.yaml"
        path.write_text(json.dumps(self.yaml), encoding="utf-8")  # json is yaml
        return path
