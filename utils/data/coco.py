"""Read the instance annotations of COCO, as lines of YOLO's label files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, NamedTuple

import cv2
import numpy as np

from utils.base.errors import DataError, MissingFileError
from utils.data.images import is_image
from utils.tasks.segment.polygons import decode_rle, join_rings, polygon_text, ring_fractions

CROWD = "crowds (iscrowd: 1)"
NO_IMAGE = "annotations of an image that is not listed"
NO_CATEGORY = "annotations of a category that is not listed"
OUTSIDE = "annotations without any area inside their image"

_MOST_PIXELS = 2**30  # larger images are not read
_OVERLAP = 0.01  # polygons that share more of an object are united: what two rings share is a hole


class _Invalid(ValueError):
    """A key of the annotations, and what is wrong with its value; the caller adds the file."""


class CocoImage(NamedTuple):
    """An image that the annotations list."""

    name: str  # relative path, with slashes
    width: int
    height: int


@dataclass
class CocoLabels:
    """The content of an annotation file.

    Attributes:
        names: class names by number: the categories in the order of their ids.
        images: by id.
        lines: lines of the label file of each image, by its id; images without objects are not in it.
        polygons: number of lines with a polygon.
        boxes: number of lines with a box.
        skipped: keys of the annotations that are left out, by reason.
    """

    names: dict[int, str]
    images: dict[int | str, CocoImage]
    lines: dict[int | str, list[str]] = field(default_factory=dict)
    polygons: int = 0
    boxes: int = 0
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, reason: str, key: str) -> None:
        """Count an annotation that is left out."""
        self.skipped.setdefault(reason, []).append(key)


def read_coco(file: Path, *, boxes: bool = False) -> CocoLabels:
    """Read a JSON file with `images`, `annotations` and `categories`.

    Args:
        file: the annotations.
        boxes: make boxes, also of objects with a polygon or mask.

    Raises:
        MissingFileError: no such file.
        DataError: not JSON, or a key is missing or not valid.
    """
    raw = _read_json(file)
    try:
        names, classes = _read_categories(raw)
        labels = CocoLabels(names, _read_images(raw))
        _read_annotations(raw, classes, labels, boxes)
    except _Invalid as error:
        raise DataError(f"{file}: {error}") from error
    return labels


def _read_json(file: Path) -> dict[str, Any]:
    try:
        raw = json.loads(file.read_bytes())
    except FileNotFoundError as error:
        raise MissingFileError(f"{file}: no such file") from error
    except OSError as error:
        raise DataError(f"{file}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{file}: not JSON ({error})") from error
    if not isinstance(raw, dict):
        raise DataError(f"{file}: expected images, annotations and categories, found a {type(raw).__name__}")
    for key in ("images", "annotations", "categories"):
        if key not in raw:
            raise DataError(f"{file}: {key!r} is missing; an instance file of COCO is expected")
        if not isinstance(raw[key], list) or not all(isinstance(item, dict) for item in raw[key]):
            raise DataError(f"{file}: {key}: expected a list of objects")
    return raw


def _get(item: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return a value of the expected type; raise _Invalid for any other."""
    value = item.get(key)
    if value is None:
        raise _Invalid(f"{where}.{key} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _Invalid(f"{where}.{key}: {_short(value)} is not accepted")
    return value


def _read_categories(raw: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, int]]:
    """Return the class names by number, and the number of each category: in the order of their ids."""
    found: dict[int, str] = {}
    for index, item in enumerate(raw["categories"]):
        where = f"categories[{index}]"
        number, name = _get(item, "id", int, where), _get(item, "name", str, where)
        if number in found:
            raise _Invalid(f"{where}.id: {number} is the id of two categories")
        found[number] = name
    if not found:
        raise _Invalid("categories: is empty")
    order = sorted(found)
    return {i: found[number] for i, number in enumerate(order)}, {number: i for i, number in enumerate(order)}


def _read_images(raw: Mapping[str, Any]) -> dict[int | str, CocoImage]:
    """Return the images by id."""
    found: dict[int | str, CocoImage] = {}
    for index, item in enumerate(raw["images"]):
        where = f"images[{index}]"
        number = _get(item, "id", (int, str), where)
        name = _file_name(_get(item, "file_name", str, where), where)
        width, height = (_get(item, side, (int, float), where) for side in ("width", "height"))
        for key, side in (("width", width), ("height", height)):
            if side % 1 or not 1 <= side <= _MOST_PIXELS:  # NaN, too
                raise _Invalid(f"{where}.{key}: {side} is not a number of pixels")
        if width * height > _MOST_PIXELS:
            raise _Invalid(f"{where}: {width}x{height} pixels are too many")
        if number in found:
            raise _Invalid(f"{where}.id: {_short(number)} is the id of two images")
        found[number] = CocoImage(name, int(width), int(height))
    if not found:
        raise _Invalid("images: is empty")
    return found


def _file_name(name: str, where: str) -> str:
    """Return the relative path of an image; refuse one that leads out of its folder."""
    path, other = PurePosixPath(name), PureWindowsPath(name)
    if path.is_absolute() or other.drive or other.root or ".." in (*path.parts, *other.parts):
        raise _Invalid(f"{where}.file_name: {_short(name)} is absolute or contains '..'; it is refused")
    if "\0" in name or not is_image(name) or not path.stem:
        raise _Invalid(f"{where}.file_name: {_short(name)} is not the name of an image")
    return str(path)


def _read_annotations(
    raw: Mapping[str, Any], classes: Mapping[int, int], labels: CocoLabels, boxes: bool
) -> None:
    """Add the lines of all annotations to `labels`; `classes` are the class numbers by category."""
    for index, item in enumerate(raw["annotations"]):
        where = f"annotations[{index}]"
        image_id = _get(item, "image_id", (int, str), where)
        category = _get(item, "category_id", (int, str), where)
        if item.get("iscrowd"):
            labels.skip(CROWD, where)
        elif image_id not in labels.images:
            labels.skip(NO_IMAGE, f"{where}.image_id: {_short(image_id)}")
        elif category not in classes:
            labels.skip(NO_CATEGORY, f"{where}.category_id: {_short(category)}")
        else:
            fractions, is_box = _object(item, labels.images[image_id], where, boxes)
            if not len(fractions):
                labels.skip(OUTSIDE, where)
                continue
            labels.boxes += is_box
            labels.polygons += not is_box
            text = _box_text(fractions) if is_box else polygon_text(fractions)
            labels.lines.setdefault(image_id, []).append(f"{classes[category]} {text}\n")


def _object(item: Mapping[str, Any], image: CocoImage, where: str, boxes: bool) -> tuple[np.ndarray, bool]:
    """Return the polygon (k, 2) of an object as fractions, or the corners of its box; and if it is a box.

    k = 0 if the image shows nothing of it.
    """
    polygons = item.get("segmentation")
    if isinstance(polygons, list) and not any(polygons):  # also [[]]
        polygons = None
    if polygons is not None and not (boxes and "bbox" in item):
        return _polygon(polygons, image, f"{where}.segmentation").clip(0, 1), boxes
    x, y, w, h = _numbers(_get(item, "bbox", list, where), f"{where}.bbox", count=4).tolist()
    if min(w, h) < 0:
        raise _Invalid(f"{where}.bbox: width {w:g} and height {h:g} may not be negative")
    corners = (np.array(((x, y), (x + w, y + h))) / (image.width, image.height)).clip(0, 1)
    return corners if np.ptp(corners, 0).all() else corners[:0], True


def _box_text(points: np.ndarray) -> str:
    """Return the box around points (k, 2) as in a label file."""
    low, high = points.min(0), points.max(0)
    return " ".join(f"{value:.6f}" for value in (*(low + high) / 2, *(high - low)))


def _polygon(segmentation: Any, image: CocoImage, where: str) -> np.ndarray:
    """Return one ring (k, 2) of fractions for the polygons or the mask of an object; k = 0 if it is empty."""
    shape_hw = image.height, image.width
    if isinstance(segmentation, dict):
        return ring_fractions(join_rings(_mask(segmentation, shape_hw, where)), shape_hw)
    if not isinstance(segmentation, list):
        raise _Invalid(f"{where}: expected a list of polygons, or a mask with size and counts")
    rings = []
    for index, values in enumerate(segmentation):
        points = _numbers(values, f"{where}[{index}]").reshape(-1, 2)
        if len(points) < 3:
            raise _Invalid(f"{where}[{index}]: {len(points)} points; a polygon has at least 3")
        points = _clip(points, image)
        if len(points) and np.ptp(points, 0).all():
            rings.append(points)
    ring = join_rings(rings)
    if len(rings) > 1 and (united := _unite(rings, ring)) is not None:
        return ring_fractions(united, shape_hw)
    return ring / (image.width, image.height)


def _mask(rle: Mapping[str, Any], shape_hw: tuple[int, int], where: str) -> np.ndarray:
    """Return the mask (h, w) of a run-length encoding."""
    size = _get(rle, "size", list, where)
    if size != list(shape_hw):
        raise _Invalid(f"{where}.size: {_short(size)}, but the image has height, width {list(shape_hw)}")
    _get(rle, "counts", (str, list), where)
    try:
        return decode_rle(dict(rle))
    except ValueError as error:
        raise _Invalid(f"{where}.counts: {error}") from error


def _numbers(values: Any, where: str, count: int | None = None) -> np.ndarray:
    """Return a list of finite numbers, x and y in turn, as (n,) float64."""
    if not isinstance(values, list) or len(values) % 2 or (count and len(values) != count):
        raise _Invalid(f"{where}: expected {count or 'pairs of'} numbers, found {_short(values)}")
    try:
        numbers = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise _Invalid(f"{where}: expected numbers, found {_short(values)}") from error
    if numbers.ndim != 1 or not (np.abs(numbers) <= _MOST_PIXELS).all():  # False for NaN, too
        raise _Invalid(f"{where}: contains values that are not positions in an image, such as NaN")
    return numbers


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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
