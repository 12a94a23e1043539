"""Write a COCO results file, and score it with pycocotools or faster-coco-eval if one is installed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.log import LOG
from utils.base.paths import atomic_write, output_root
from utils.ops.boxes import xyxy2xywh

if TYPE_CHECKING:
    from torch import Tensor

_UNUSED_IDS = {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}  # of COCO's 90 category ids, 80 are in use
COCO_IDS: tuple[int, ...] = tuple(number for number in range(1, 91) if number not in _UNUSED_IDS)
_ANNOTATIONS = Path("annotations", "instances_val2017.json")


class JsonWriter:
    """Rows of a COCO results file: image_id, category_id, bbox (left, top, width, height), score.

    Args:
        category_ids: id of each class; by default its index.
    """

    def __init__(self, category_ids: Sequence[int] = ()) -> None:
        self.category_ids = category_ids
        self.image_ids: list[int | str] = []
        self.rows: list[dict[str, object]] = []

    def add(self, path: Path, detections: Tensor) -> None:
        """Add the `detections` (n, 6) of one image, in its own pixels."""
        # COCO's image ids are numbers, and the names of its files.
        image_id = int(path.stem) if path.stem.isdecimal() else path.stem
        self.image_ids.append(image_id)
        boxes = xyxy2xywh(detections[:, :4])
        boxes[:, :2] -= boxes[:, 2:] / 2
        for box, (score, index) in zip(boxes.tolist(), detections[:, 4:6].tolist(), strict=True):
            self.rows.append(
                {
                    "image_id": image_id,
                    "category_id": self.category_ids[int(index)] if self.category_ids else int(index),
                    "bbox": [round(value, 3) for value in box],
                    "score": round(score, 5),
                }
            )

    def save(self, path: Path) -> None:
        """Write all rows to `path`."""
        with atomic_write(path, "w", encoding="utf-8") as file:
            json.dump(self.rows, file)
        LOG.info(f"{len(self.rows)} detections saved to {path}")


def find_annotations(root: Path) -> Path | None:
    """Find the annotations of COCO val2017 below the dataset's root or in ../datasets/coco."""
    for folder in (root, output_root().parent / "datasets" / "coco"):
        if (folder / _ANNOTATIONS).is_file():
            return folder / _ANNOTATIONS
    return None


def coco_scores(
    predictions: Path, annotations: Path, image_ids: Sequence[int | str]
) -> tuple[float, float] | None:
    """Compute (mAP50-95, mAP50) with the COCO tools; None, with a warning, where that is not possible."""
    tools = _tools()
    if tools is None:
        LOG.warning("COCO scores need pycocotools or faster-coco-eval: pip install pycocotools")
        return None
    coco_class, eval_class = tools
    try:
        with redirect_stdout(StringIO()) as table:
            truth = coco_class(str(annotations))
            scorer = eval_class(truth, truth.loadRes(str(predictions)), "bbox")
            scorer.params.imgIds = list(image_ids)
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
    except (AssertionError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        LOG.warning(f"{predictions}: no COCO scores against {annotations} ({type(error).__name__}: {error})")
        return None
    LOG.info(table.getvalue().rstrip())
    return float(scorer.stats[0]), float(scorer.stats[1])


def _tools() -> tuple[Any, Any] | None:
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        try:
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as COCOeval
        except ImportError:
            return None
    return COCO, COCOeval
