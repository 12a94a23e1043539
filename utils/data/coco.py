"""Read the instance annotations of COCO, as lines of YOLO's label files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.names import counted
from utils.data.coco_json import (
    MOST_PIXELS,
    Invalid,
    get,
    get_id,
    has_box,
    is_crowd,
    numbers,
    plain_id,
    plain_name,
    read_box,
    read_categories,
    read_json,
    short,
)
from utils.data.coco_match import match_names
from utils.data.images import is_image
from utils.tasks.segment.polygons import decode_rle, join_rings, polygon_text, ring_fractions

# What is left out, in the singular.
CROWD = "crowd (iscrowd: 1)"
NO_IMAGE = "annotation of an image that is not listed"
NO_CATEGORY = "annotation of a category that is not listed"
OUTSIDE = "annotation without any area inside the image"

_OVERLAP = 0.01  # polygons that share more of an object are united: what two rings share is a hole


class CocoImage(NamedTuple):
    """An image that the annotations list."""

    name: str  # relative path, with slashes
    width: int
    height: int


@dataclass
class CocoLabels:
    """The content of an annotation file.

    Attributes:
        names: class names by number.
        categories: names of all categories, in the order of their ids.
        images: by id.
        lines: lines of the label file of each image, by its id; images without objects are not in it.
        keys: key of the annotation that each line is made of.
        skipped: keys of the annotations that are left out, by reason.
        errors: of annotations that are not valid, by the id of their image.
    """

    names: dict[int, str]
    categories: list[str]
    images: dict[int | str, CocoImage]
    lines: dict[int | str, list[str]] = field(default_factory=dict)
    keys: dict[int | str, list[str]] = field(default_factory=dict)
    skipped: dict[str, list[str]] = field(default_factory=dict)
    errors: dict[int | str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, key: str) -> None:
        """Count an annotation that is left out."""
        self.skipped.setdefault(reason, []).append(key)

    def describe_skipped(self) -> dict[str, str]:
        """Return a text about the annotations that are left out, by reason."""
        texts = {}
        for reason, keys in self.skipped.items():
            noun, _, what = reason.partition(" ")
            texts[reason] = f"left out: {counted(len(keys), noun)} {what}, first: {keys[0]}"
        return texts


def read_coco(
    file: Path, *, boxes: bool = False, names: Sequence[str] = (), strict: bool = True
) -> CocoLabels:
    """Read a JSON file with `images`, `annotations` and `categories`.

    Args:
        file: the annotations.
        boxes: make boxes, also of objects with a polygon or mask.
        names: classes, which the categories are assigned to by name; by default the classes are the
            categories in the order of their ids.
        strict: raise an error for an annotation that is not valid, and for the name of an image that cannot
            be written to; otherwise such annotations are collected in `CocoLabels.errors`.

    Raises:
        MissingFileError: no such file.
        DataError: not JSON, a key is missing or not valid, or objects are of a category that is not in
            `names`.
    """
    raw = read_json(file)
    try:
        categories = read_categories(raw)
        classes = _number_classes(raw, categories, names)
        offered = list(categories.values())
        labels = CocoLabels(dict(enumerate(names or offered)), offered, _read_images(raw, strict))
        _read_annotations(raw, classes, labels, boxes, strict)
    except Invalid as error:
        raise DataError(f"{file}: {error}") from error
    return labels


def _number_classes(
    raw: Mapping[str, Any], categories: Mapping[int, str], names: Sequence[str]
) -> dict[int, int]:
    """Return the class number of each category: by name, or in the order of their ids without `names`."""
    if not names:
        return {number: index for index, number in enumerate(categories)}
    matched = dict(zip(categories, match_names(list(categories.values()), names), strict=True))
    unknown = {number for number, index in matched.items() if index is None}
    for index, item in enumerate(raw["annotations"] if unknown else ()):
        if isinstance(number := plain_id(item.get("category_id")), int) and number in unknown:
            raise Invalid(
                f"annotations[{index}].category_id: {number} is {short(categories[number])}, which is not "
                f"one of the names: of the data yaml, {short(list(names))}"
            )
    return {number: index for number, index in matched.items() if index is not None}


def _read_images(raw: Mapping[str, Any], strict: bool) -> dict[int | str, CocoImage]:
    """Return the images by id."""
    found: dict[int | str, CocoImage] = {}
    for index, item in enumerate(raw["images"]):
        where = f"images[{index}]"
        number = get_id(item, "id", where)
        name = _file_name(item, where) if strict else plain_name(item, where)
        width, height = (get(item, side, (int, float), where) for side in ("width", "height"))
        for key, side in (("width", width), ("height", height)):
            if side % 1 or not 1 <= side <= MOST_PIXELS:  # NaN, too
                raise Invalid(f"{where}.{key}: {side} is not a number of pixels")
        if width * height > MOST_PIXELS:
            raise Invalid(f"{where}: {width}x{height} pixels are too many")
        if number in found:
            raise Invalid(f"{where}.id: {short(number)} is the id of two images")
        found[number] = CocoImage(name, int(width), int(height))
    if not found:
        raise Invalid("images: is empty")
    return found


def _file_name(item: Mapping[str, Any], where: str) -> str:
    """Return the relative path of an image; refuse one that leads out of its folder."""
    name = get(item, "file_name", str, where)
    path, other = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or other.drive or other.root or ".." in (*path.parts, *other.parts):
        raise Invalid(f"{where}.file_name: {short(name)} is absolute or contains '..'; it is refused")
    if "\0" in name or not is_image(name) or not path.stem:
        raise Invalid(f"{where}.file_name: {short(name)} is not the name of an image")
    return str(path)


def _read_annotations(
    raw: Mapping[str, Any], classes: Mapping[int, int], labels: CocoLabels, boxes: bool, strict: bool
) -> None:
    """Add the lines of all annotations to `labels`; `classes` are the class numbers by category."""
    for index, item in enumerate(raw["annotations"]):
        where = f"annotations[{index}]"
        try:
            _read_annotation(item, where, classes, labels, boxes)
        except Invalid as error:
            if strict:
                raise
            image_id = plain_id(item.get("image_id"))
            if isinstance(image_id, int | str) and image_id in labels.images:
                labels.errors.setdefault(image_id, []).append(str(error))
            else:
                labels.skip(NO_IMAGE, f"{where}.image_id: {short(image_id)}")


def _read_annotation(
    item: Mapping[str, Any], where: str, classes: Mapping[Any, int], labels: CocoLabels, boxes: bool
) -> None:
    image_id, category = get_id(item, "image_id", where), get_id(item, "category_id", where)
    if is_crowd(item):
        labels.skip(CROWD, where)
    elif image_id not in labels.images:
        labels.skip(NO_IMAGE, f"{where}.image_id: {short(image_id)}")
    elif category not in classes:
        labels.skip(NO_CATEGORY, f"{where}.category_id: {short(category)}")
    else:
        text, is_box = _object_text(item, labels.images[image_id], where, boxes)
        if not text:
            labels.skip(OUTSIDE, where)
            return
        labels.lines.setdefault(image_id, []).append(f"{classes[category]} {text}\n")
        labels.keys.setdefault(image_id, []).append(where)


def _object_text(item: Mapping[str, Any], image: CocoImage, where: str, boxes: bool) -> tuple[str, bool]:
    """Return an object as in a label file, without its class, and whether it is a box.

    The text is empty if the image shows nothing of the object.
    """
    polygons = item.get("segmentation")
    if isinstance(polygons, list) and not any(polygons):  # also [[]]
        polygons = None
    if polygons is not None and not (boxes and has_box(item)):
        points = _polygon(polygons, image, f"{where}.segmentation").clip(0, 1)
        if not len(points):
            return "", boxes
        return (_box_text(*points.min(0), *points.max(0)) if boxes else polygon_text(points)), boxes
    x, y, w, h = read_box(item, where)
    # Plain numbers: arrays of four would take ten times as long.
    left, right = (min(max(value / image.width, 0.0), 1.0) for value in (x, x + w))
    top, bottom = (min(max(value / image.height, 0.0), 1.0) for value in (y, y + h))
    return (_box_text(left, top, right, bottom) if right > left and bottom > top else ""), True


def _box_text(left: float, top: float, right: float, bottom: float) -> str:
    """Return the box between corners, which are fractions, as in a label file."""
    return f"{(left + right) / 2:.6f} {(top + bottom) / 2:.6f} {right - left:.6f} {bottom - top:.6f}"


def _polygon(segmentation: Any, image: CocoImage, where: str) -> np.ndarray:
    """Return one ring (k, 2) of fractions for the polygons or the mask of an object; k = 0 if it is empty."""
    shape_hw = image.height, image.width
    if isinstance(segmentation, dict):
        return ring_fractions(join_rings(_mask(segmentation, shape_hw, where)), shape_hw)
    if not isinstance(segmentation, list):
        raise Invalid(f"{where}: expected a list of polygons, or a mask with size and counts")
    rings = []
    for index, values in enumerate(segmentation):
        points = numbers(values, f"{where}[{index}]").reshape(-1, 2)
        if len(points) < 3:
            raise Invalid(f"{where}[{index}]: {len(points)} points; a polygon has at least 3")
        points = _clip(points, image)
        if len(points) and np.ptp(points, 0).all():
            rings.append(points)
    ring = join_rings(rings)
    if len(rings) > 1 and (united := _unite(rings, ring)) is not None:
        return ring_fractions(united, shape_hw)
    return ring / (image.width, image.height)


def _mask(rle: Mapping[str, Any], shape_hw: tuple[int, int], where: str) -> np.ndarray:
    """Return the mask (h, w) of a run-length encoding."""
    size = get(rle, "size", list, where)
    if size != list(shape_hw):
        raise Invalid(f"{where}.size: {short(size)}, but the image has height, width {list(shape_hw)}")
    get(rle, "counts", (str, list), where)
    try:
        return decode_rle(dict(rle))
    except ValueError as error:
        raise Invalid(f"{where}.counts: {error}") from error


def _clip(points: np.ndarray, image: CocoImage) -> np.ndarray:
    """Clip a polygon (k, 2) at the four borders of the image (Sutherland and Hodgman)."""
    for axis, side in enumerate((image.width, image.height)):
        for limit, sign in ((0, 1), (side, -1)):
            inside = (points[:, axis] - limit) * sign >= 0
            if inside.all():
                continue
            ahead = np.roll(points, -1, axis=0)
            crosses = inside != np.roll(inside, -1)
            span = np.where(crosses, ahead[:, axis] - points[:, axis], 1)
            cut = points + (ahead - points) * ((limit - points[:, axis]) / span)[:, None]
            cut[:, axis] = limit
            points = np.stack((points, cut), 1)[np.stack((inside, crosses), 1)]
    return points


def _unite(rings: Sequence[np.ndarray], joined: np.ndarray) -> np.ndarray | None:
    """Return the ring (k, 2) around the union of polygons, if `joined` has holes where they overlap."""
    origin = joined.min(0).astype(np.int32)
    width, height = (joined.max(0).astype(np.int32) - origin + 1).tolist()
    union, filled = np.zeros((2, height, width), np.uint8)
    for ring in rings:
        cv2.fillPoly(union, [ring.astype(np.int32) - origin], 1)
    cv2.fillPoly(filled, [joined.astype(np.int32) - origin], 1)
    lost = int((union > filled).sum())
    return join_rings(union) + origin if lost > _OVERLAP * int(union.sum()) else None
