"""Read COCO results files of any framework, and measure them on the labels of a dataset as val.py does."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch

from studies.compare.examples import CONF_THRES, Objects
from utils.base.errors import DataError, MissingFileError
from utils.base.inputs import read_file
from utils.base.limits import LIST
from utils.base.log import LOG
from utils.base.names import counted
from utils.data.coco_json import Invalid, get_id
from utils.val.accumulator import EvalResult, MatchAccumulator

if TYPE_CHECKING:
    from utils.data.dataset_yaml import DataSpec
    from utils.data.scan import LabelledFiles
    from utils.ops.metrics import MatchRule
    from utils.val.coco_truth import CocoTruth
    from utils.val.val_options import ValOptions

Detections = dict[int, np.ndarray]  # image index -> (n, 6) xyxy in pixels of the image, confidence, class


@dataclass(frozen=True)
class Truth:
    """Images and labels of a split, and the ids that results files have for them."""

    files: LabelledFiles
    names: dict[int, str]
    image_of: dict[int | str, int]  # id -> image index
    class_of: dict[int | str, int]  # category id -> class
    ids: str  # where the ids come from, for messages
    single_cls: bool = False

    def objects(self, index: int) -> np.ndarray:
        """Return the labels of an image as (m, 5) class, xyxy in pixels."""
        from utils.ops.boxes import xywhn2xyxy

        rows = np.array(self.files.labels[index], np.float32)
        width, height = self.files.sizes[index]
        rows[:, 1:] = xywhn2xyxy(rows[:, 1:], width, height)
        rows[:, 0] *= not self.single_cls
        return rows


def load_truth(data: DataSpec, options: ValOptions) -> Truth:
    """Read the labels of the split that `options` name.

    The ids of images and categories are those of COCO annotations: of the data yaml, beside the images or
    from `--ann`. Without any, the id of an image is its name, with or without the suffix, or the number that
    its name is, and the id of a category is the number of the class.

    Raises:
        ConfigError, DataError: no such split, or `--ann` cannot be used.
    """
    from utils.data.scan import load_labels

    split = options.task if options.task in ("train", "test") else "val"
    sources = getattr(data, split)
    if not sources:
        raise DataError(f"--task {split}: {data.yaml} has no images '{split}'")
    names = {0: "item"} if options.single_cls else data.names
    files = load_labels(sources, None if options.single_cls else names, root=data.root, boxes=True)
    coco = _annotations(data, split, [str(path) for path in files.images], options)
    image_of: dict[int | str, int] = {}
    if coco is not None:
        for index, path in enumerate(files.images):
            if str(path) in coco.image_ids:
                image_of[coco.image_ids[str(path)]] = index
        class_of: dict[int | str, int] = {}
        for cls, category in enumerate(coco.category_ids):
            if category is not None:
                class_of[category] = cls
        return Truth(files, names, image_of, class_of, str(coco.file), options.single_cls)
    if len({path.stem for path in files.images}) < len(files.images):
        raise DataError(f"{data.yaml}: several images have one name, so they need ids: give --ann FILE")
    for index, path in enumerate(files.images):
        image_of |= dict.fromkeys((path.stem, path.name), index)
        if path.stem.isdecimal():
            image_of[int(path.stem)] = index
    return Truth(
        files, names, image_of, dict(zip(names, names, strict=True)), "the images", options.single_cls
    )


def _annotations(data: DataSpec, split: str, paths: Sequence[str], options: ValOptions) -> CocoTruth | None:
    from utils.val.coco_truth import read_truth

    try:
        return read_truth(data, split, paths, options.ann, options.single_cls)
    except MissingFileError as error:
        if options.ann:
            raise MissingFileError(f"--ann {error}") from error
        return None


def read_predictions(file: Path, truth: Truth) -> Detections:
    """Read a COCO results file: a list with image_id, category_id, bbox (left, top, width, height) and score.

    Raises:
        MissingFileError: no such file.
        DataError: not such a list, or it is of other images or categories.
    """
    try:
        content = json.loads(read_file(file, LIST))
    except FileNotFoundError as error:
        raise MissingFileError(f"--predictions {file}: no such file") from error
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    if not isinstance(content, list):
        raise DataError(f"{file}: expected a list of detections, found a {type(content).__name__}")
    rows: defaultdict[int, list[list[float]]] = defaultdict(list)
    strangers: list[Any] = []
    for index, item in enumerate(content):
        image_id, category, row = _read_row(item, f"{file}: [{index}]")
        image = truth.image_of.get(image_id)
        cls = 0 if truth.single_cls else truth.class_of.get(category)
        if cls is None:
            known = ", ".join(map(str, list(truth.class_of)[:5]))
            raise DataError(
                f"{file}: [{index}].category_id is {category}, but the categories of {truth.ids} are {known}"
                f"{', ...' if len(truth.class_of) > 5 else ''}; give the annotations with --ann FILE"
            )
        if image is None:
            strangers.append(image_id)
        else:
            rows[image].append([*row, cls])
    _check_images(file, strangers, len(content), truth)
    return {image: np.array(of_image, np.float32) for image, of_image in rows.items()}


def _check_images(file: Path, strangers: Sequence[Any], count: int, truth: Truth) -> None:
    """Warn if some detections are of other images; raise DataError if all are."""
    if not strangers:
        return
    example = (
        f"first: image_id {strangers[0]!r}; the ids of {truth.ids} are like {next(iter(truth.image_of))!r}"
    )
    if len(strangers) == count:
        raise DataError(f"{file}: no detection is in an image of the split, {example}")
    LOG.warning(f"{file}: {counted(len(strangers), 'detection')} of other images do not count, {example}")


def _read_row(item: Any, where: str) -> tuple[int | str, int | str, list[float]]:
    """Return the ids of image and category, and x1, y1, x2, y2, score."""
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object, found {item!r:.40}")
    for key in ("image_id", "category_id", "bbox", "score"):
        if key not in item:
            raise DataError(f"{where}: {key} is missing")
    box, score = item["bbox"], item["score"]
    try:
        image_id, category = (get_id(item, key, where) for key in ("image_id", "category_id"))
    except Invalid as error:
        raise DataError(str(error)) from error
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
        raise DataError(f"{where}.bbox: expected left, top, width and height, found {box!r:.60}")
    if not _is_number(score):
        raise DataError(f"{where}.score: expected a number, found {score!r:.40}")
    x, y, w, h = map(float, box)
    return image_id, category, [x, y, x + w, y + h, float(score)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def measure_predictions(found: Detections, truth: Truth, options: ValOptions) -> EvalResult:
    """Measure detections with `--conf-thres`, `--max-det` and `--match` of val.py."""
    accumulator = MatchAccumulator(len(truth.names), cast("MatchRule", options.match))
    for index, path in enumerate(truth.files.images):
        rows = found.get(index, np.zeros((0, 6), np.float32))
        rows = rows[rows[:, 4] > options.conf_thres]
        rows = rows[np.argsort(-rows[:, 4], kind="stable")[: options.max_det]]
        accumulator.add(torch.from_numpy(rows), torch.from_numpy(truth.objects(index)))
        accumulator.end_batch([str(path)])
    return accumulator.result(truth.names)


def objects_of(found: Detections, index: int, threshold: float = CONF_THRES) -> Objects:
    """Return the detections of an image above a confidence threshold, by default that of examples."""
    rows = found.get(index, np.zeros((0, 6), np.float32))
    return Objects(rows[rows[:, 4] > threshold])
