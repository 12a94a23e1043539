"""All that a validation writes: label files, a json, pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.val.coco_json import COCO_IDS, coco_scores, find_annotations
from utils.val.pictures import Pictures
from utils.val.writers import JsonWriter, LabelWriter, image_id_of

if TYPE_CHECKING:
    import numpy as np

    from utils.data.dataset_yaml import DataSpec
    from utils.val.result import EvalResult


@dataclass(frozen=True)
class Wanted:
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


class Outputs:
    """Pass what is found to those who write it; nothing is opened that isn't wanted."""

    def __init__(self, wanted: Wanted, names: dict[int, str]) -> None:
        self.wanted = wanted
        is_coco = wanted.data is not None and wanted.data.is_coco
        self.labels = (
            LabelWriter(wanted.folder() / "labels", wanted.save_conf)
            if wanted.save_txt or wanted.save_hybrid
            else None
        )
        self.json = JsonWriter(COCO_IDS if is_coco else None) if wanted.save_json else None
        self.pictures = Pictures(wanted.folder(), names) if wanted.plots else None
        self._image_ids: list[int | str] = []

    def batch(
        self, index: int, images: Tensor, targets: Tensor, paths: Sequence[str], detections: list[Tensor]
    ) -> None:
        """Take a batch as the loader delivered it, and its detections in pixels of the batch."""
        if self.pictures is not None:
            self.pictures.batch(index, images, targets, paths, detections)

    def image(self, path: Path, detections: Tensor, size_hw: tuple[int, int]) -> None:
        """Take one picture's `detections` (n, 6) in its own pixels."""
        self._image_ids.append(image_id_of(path))
        if self.labels is not None:
            self.labels.add(path, detections, size_hw)
        if self.json is not None:
            self.json.add(path, detections)

    def finish(self, result: EvalResult, confusion: np.ndarray | None) -> EvalResult:
        """Write what needs all pictures; COCO's own scores replace mAP50 and mAP50-95 in the result."""
        if self.pictures is not None and confusion is not None:
            self.pictures.finish(result.ap, confusion)
        return self._save_json(self.json, result) if self.json is not None else result

    def close(self) -> None:
        """Stop drawing, whatever has happened."""
        if self.pictures is not None:
            self.pictures.close()

    def _save_json(self, json: JsonWriter, result: EvalResult) -> EvalResult:
        path = self.wanted.folder() / f"{self.wanted.json_stem}_predictions.json"
        json.save(path)
        LOG.info(f"{len(json.rows)} detections saved to {path}")
        data = self.wanted.data
        if data is None or not data.is_coco:
            return result
        annotations = find_annotations(data.root)
        if annotations is None:
            LOG.warning(f"no COCO scores: annotations/instances_val2017.json is not below {data.root}")
            return result
        scores = coco_scores(path, annotations, self._image_ids)
        return result if scores is None else replace(result, map=scores[0], map50=scores[1])
