"""Compute mAP with the COCO tools, pycocotools or faster-coco-eval, whichever is installed."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.names import counted
from utils.data.coco_json import (
    Invalid,
    get_id,
    has_box,
    is_crowd,
    numbers,
    plain_id,
    read_box,
    read_json,
    short,
)
from utils.tasks.segment.polygons import decode_rle

_PACKAGES = "pycocotools or faster-coco-eval"
_WITH_IDS = ("images", "categories")
_TRIANGLE = 6  # numbers of a polygon with the least points


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

    Annotations that are not valid are left out, with a warning.

    Args:
        predictions: results file of COCO.
        annotations: instance annotations.
        image_ids: of the images that were evaluated; the others do not count.
        kind: bbox or segm.
        single_cls: categories do not count.

    Raises:
        ConfigError: no package is installed.
        DataError: the tools cannot use the files, or there is nothing to score against.
    """
    coco_class, eval_class = check_tools()
    complete = _completed(read_json(annotations), annotations, kind)
    ids = [plain_id(number) for number in image_ids]
    _check_objects(complete, annotations, ids, single_cls)
    try:
        rows = json.loads(predictions.read_bytes())
        with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()) as table:
            file = Path(folder, "annotations.json")
            file.write_text(json.dumps(complete))
            truth = coco_class(str(file))
            found = truth.loadRes([{**row, "image_id": plain_id(row["image_id"])} for row in rows])
            scorer = eval_class(truth, found, kind)
            scorer.params.imgIds = ids
            scorer.params.useCats = int(not single_cls)
            scorer.evaluate()
            scorer.accumulate()
            scorer.summarize()
    except (AssertionError, AttributeError, IndexError, KeyError, OSError, TypeError, ValueError) as error:
        raise DataError(
            f"{predictions}: no COCO scores against {annotations} ({type(error).__name__}: {error})"
        ) from error
    lines = [line for line in table.getvalue().splitlines() if line.lstrip().startswith("Average ")]
    LOG.info("\n".join([f"{kind} against {annotations}, by {coco_class.__module__.split('.')[0]}:", *lines]))
    return float(scorer.stats[0]), float(scorer.stats[1])


def _completed(raw: dict[str, Any], file: Path, kind: str) -> dict[str, Any]:
    """Return annotations with the keys that the tools need, and that many programs do not write.

    Those that are not valid are left out: the tools fail on them, or take NaN for an object that is found.
    Ids are numbered from 1: the tools take a match with id 0 for none.
    """
    made: list[dict[str, Any]] = []
    errors = []
    for index, item in enumerate(raw["annotations"]):
        try:
            made.append({**_complete_object(item, kind, f"annotations[{index}]"), "id": len(made) + 1})
        except Invalid as error:
            errors.append(error)
    if errors:
        LOG.warning(f"{file}: not scored ({kind}): {counted(len(errors), 'annotation')}, first: {errors[0]}")
    lists = {key: [{**item, "id": plain_id(item.get("id"))} for item in raw[key]] for key in _WITH_IDS}
    return {"info": {}, "licenses": [], **raw, **lists, "annotations": made}


def _check_objects(
    complete: Mapping[str, Any], file: Path, image_ids: Sequence[int | str], single_cls: bool
) -> None:
    """Raise DataError if no object counts: the tools report -1 then."""
    images, categories = set(image_ids), {item["id"] for item in complete["categories"]}
    objects = [
        item
        for item in complete["annotations"]
        if item["image_id"] in images and (single_cls or item["category_id"] in categories)
    ]
    if all(item["iscrowd"] for item in objects):
        only = f", only {counted(len(objects), 'crowd')}" if objects else ""
        evaluated = counted(len(images), "evaluated image")
        raise DataError(f"{file}: nothing to score: no valid annotation in the {evaluated}{only}")


def _complete_object(item: Mapping[str, Any], kind: str, where: str) -> dict[str, Any]:
    """Return an annotation with all keys of the tools; raise Invalid if it is not valid.

    As in training, detections are compared with the `bbox`, and masks with the `segmentation`.
    """
    ids = {key: get_id(item, key, where) for key in ("image_id", "category_id")}
    segmentation = None if kind == "bbox" and has_box(item) else _segmentation(item, where)
    try:
        x, y, w, h = read_box(item, where)
    except Invalid:
        if segmentation is None:
            raise
        x, y, w, h = _box_around(segmentation, f"{where}.segmentation")
    area = item.get("area")
    known = isinstance(area, int | float) and math.isfinite(area)
    return {
        **item,
        **ids,
        "bbox": [x, y, w, h],
        "area": area if known else w * h,
        "iscrowd": int(is_crowd(item)),
        "segmentation": segmentation or [[x, y, x, y + h, x + w, y + h, x + w, y]],  # as in training
    }


def _segmentation(item: Mapping[str, Any], where: str) -> Any:
    """Return the polygons or the mask of an annotation; None if it has none."""
    found, where = item.get("segmentation"), f"{where}.segmentation"
    if isinstance(found, list):
        rings = [
            ring for index, ring in enumerate(found) if len(numbers(ring, f"{where}[{index}]")) >= _TRIANGLE
        ]
        return rings or None
    if found is not None and not isinstance(found, dict):
        raise Invalid(f"{where}: expected a list of polygons, or a mask, found {short(found)}")
    return found


def _box_around(segmentation: Any, where: str) -> list[float]:
    """Return the box x, y, w, h around polygons or a mask."""
    if isinstance(segmentation, list):
        points = np.concatenate([np.asarray(ring, float).reshape(-1, 2) for ring in segmentation])
        return [*points.min(0).tolist(), *np.ptp(points, 0).tolist()]
    try:
        y, x = np.nonzero(decode_rle(segmentation))
    except (KeyError, TypeError, ValueError) as error:
        raise Invalid(f"{where}: not a mask ({type(error).__name__}: {error})") from error
    if not len(x):
        raise Invalid(f"{where}: the mask is empty")
    return [float(value) for value in (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)]
