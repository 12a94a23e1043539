"""Compute mAP with the COCO tools, pycocotools or faster-coco-eval, whichever is installed."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.tasks.segment.polygons import decode_rle

_PACKAGES = "pycocotools or faster-coco-eval"


def check_tools() -> tuple[Any, Any]:
    """Return the classes COCO and COCOeval.

    Raises:
        ConfigError: no package with them is installed.
    """
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError:
        try:
            from faster_coco_eval import COCO
            from faster_coco_eval import COCOeval_faster as COCOeval
        except ImportError as error:
            raise ConfigError(f"{_PACKAGES} is not installed: pip install pycocotools") from error
    return COCO, COCOeval


def coco_scores(
    predictions: Path,
    annotations: Path,
    image_ids: Sequence[int | str],
    kind: str = "bbox",
    *,
    single_cls: bool = False,
) -> tuple[float, float]:
    """Compute (mAP50-95, mAP50) with the COCO tools, and log their table.

    Args:
        predictions: results file of COCO.
        annotations: instance annotations.
        image_ids: of the images that were evaluated; the others do not count.
        kind: bbox or segm.
        single_cls: categories do not count.

    Raises:
        ConfigError: no package is installed.
        DataError: the tools cannot use the files.
    """
    coco_class, eval_class = check_tools()
    try:
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as table:
            complete = Path(folder, "annotations.json")
            complete.write_text(json.dumps(_completed(json.loads(annotations.read_bytes()))))
            truth = coco_class(str(complete))
            scorer = eval_class(truth, truth.loadRes(str(predictions)), kind)
            scorer.params.imgIds = list(image_ids)
            scorer.params.useCats = int(not single_cls)
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
    except (AssertionError, AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{predictions}: no COCO scores against {annotations} ({type(error).__name__}: {error})"
        ) from error
    rows = [line for line in table.getvalue().splitlines() if line.lstrip().startswith("Average ")]
    LOG.info("\n".join([f"{kind} against {annotations}, by {coco_class.__module__.split('.')[0]}:", *rows]))
    return float(scorer.stats[0]), float(scorer.stats[1])


def _completed(raw: dict[str, Any]) -> dict[str, Any]:
    """Return annotations with the keys that the tools need, and that many programs do not write.

    Ids are numbered from 1: the tools take a match with id 0 for none.
    """
    sizes = {item.get("id"): (item.get("height"), item.get("width")) for item in raw["images"]}
    made = [
        _complete_object(item, number, sizes.get(item.get("image_id")))
        for number, item in enumerate(raw["annotations"], 1)
    ]
    return {"info": {}, "licenses": [], **raw, "annotations": made}


def _complete_object(item: Mapping[str, Any], number: int, size_hw: Any) -> dict[str, Any]:
    segmentation = item.get("segmentation")
    if isinstance(segmentation, list):
        segmentation = [ring for ring in segmentation if len(ring) >= 6] or None  # at least 3 points
    box = item.get("bbox") or _box_around(segmentation)
    x, y, w, h = (float(value) for value in box)
    area = item.get("area")
    crowd = int(bool(item.get("iscrowd")))
    if segmentation is None:  # as training does, the rectangle
        segmentation = [[x, y, x, y + h, x + w, y + h, x + w, y]]
    return {
        **item,
        "id": number,
        "bbox": [x, y, w, h],
        "area": w * h if area is None else area,
        "iscrowd": crowd,
        "segmentation": segmentation,
    }


def _box_around(segmentation: Any) -> list[float]:
    """Return the box x, y, w, h around polygons or a mask.

    Raises:
        ValueError: there is nothing.
    """
    if isinstance(segmentation, dict):
        y, x = np.nonzero(decode_rle(segmentation))
        low, high = np.array((x.min(), y.min())), np.array((x.max(), y.max())) + 1
    elif segmentation:
        points = np.concatenate([np.asarray(ring, float).reshape(-1, 2) for ring in segmentation])
        low, high = points.min(0), points.max(0)
    else:
        raise ValueError("an annotation has neither a bbox nor a segmentation")
    return [float(value) for value in (*low, *(high - low))]
