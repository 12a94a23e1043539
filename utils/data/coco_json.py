"""Read the JSON of COCO annotations: its keys, ids and boxes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from utils.base.errors import DataError, MissingFileError
from utils.base.inputs import read_file
from utils.base.limits import LIST

MOST_PIXELS = 2**30  # larger images are not read


class Invalid(ValueError):
    """A key of the annotations, and what is wrong with its value; the caller adds the file."""


class CocoEntries(NamedTuple):
    """What annotations list, without the objects."""

    images: dict[int | str, str]  # names by id, which is text where the file has text
    categories: dict[int, str]  # names by id, in the order of the ids
    used: set[int]  # ids of the categories of the objects


def read_entries(file: Path) -> CocoEntries:
    """Read the images and categories of a file.

    Raises:
        MissingFileError: no such file.
        DataError: not JSON, or a key is missing or not valid.
    """
    raw = read_json(file)
    try:
        images = {
            _written_id(item, f"images[{index}]"): plain_name(item, f"images[{index}]")
            for index, item in enumerate(raw["images"])
        }
        ids = (plain_id(item.get("category_id")) for item in raw["annotations"])
        return CocoEntries(images, read_categories(raw), {one for one in ids if isinstance(one, int)})
    except Invalid as error:
        raise DataError(f"{file}: {error}") from error


def _written_id(item: Mapping[str, Any], where: str) -> int | str:
    """Return an id as other programs read it from the file: text remains text."""
    number = get_id(item, "id", where)
    return item["id"] if isinstance(item["id"], str) else number


def read_json(file: Path) -> dict[str, Any]:
    """Read a file with lists of images, annotations and categories.

    Raises:
        MissingFileError: no such file.
        DataError: not JSON, or one of the lists is missing.
    """
    try:
        raw = json.loads(read_file(file, LIST))
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


def get(item: Mapping[str, Any], key: str, kind: type | tuple[type, ...], where: str) -> Any:
    """Return a value of the expected type; raise Invalid for any other."""
    value = item.get(key)
    if value is None:
        raise Invalid(f"{where}.{key} is missing")
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Invalid(f"{where}.{key}: {short(value)} is not accepted")
    return value


def plain_id(value: Any) -> Any:
    """Return an id as a number where it is one: programs write "1" and 1.0 (pandas) for 1, too."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and value.isascii() and value.isdecimal() and str(int(value[:99])) == value:
        return int(value)
    return value


def get_id(item: Mapping[str, Any], key: str, where: str) -> int | str:
    """Return an id, see `plain_id`; raise Invalid if it is neither a whole number nor text."""
    number = plain_id(item.get(key))
    if isinstance(number, int | str) and not isinstance(number, bool):
        return number
    text: str = get(item, key, str, where)  # raises
    return text


def is_crowd(item: Mapping[str, Any]) -> bool:
    """Return whether an annotation is a crowd; pandas writes NaN where `iscrowd` is missing."""
    value = plain_id(item.get("iscrowd"))
    return bool(value) and not (isinstance(value, float) and math.isnan(value))


def has_box(item: Mapping[str, Any]) -> bool:
    """Return whether an annotation has a `bbox`, valid or not."""
    return item.get("bbox") not in (None, [])


def read_box(item: Mapping[str, Any], where: str) -> list[float]:
    """Return the box of an annotation: left, top, width, height in pixels; raise Invalid for any other."""
    x, y, w, h = numbers(get(item, "bbox", list, where), f"{where}.bbox", count=4).tolist()
    if min(w, h) < 0:
        raise Invalid(f"{where}.bbox: width {w:g} and height {h:g} may not be negative")
    return [x, y, w, h]


def read_categories(raw: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the categories by id, in the order of their ids."""
    found: dict[int, str] = {}
    for index, item in enumerate(raw["categories"]):
        where = f"categories[{index}]"
        number, name = get_id(item, "id", where), get(item, "name", str, where)
        if isinstance(number, str):
            raise Invalid(f"{where}.id: {short(number)} is not accepted")
        if number in found:
            raise Invalid(f"{where}.id: {number} is the id of two categories")
        found[number] = name
    if not found:
        raise Invalid("categories: is empty")
    return dict(sorted(found.items()))


def plain_name(item: Mapping[str, Any], where: str) -> str:
    """Return the path of an image with slashes, only to be compared with those of images that exist."""
    return str(PurePosixPath(get(item, "file_name", str, where).replace("\\", "/")))


def numbers(values: Any, where: str, count: int | None = None) -> np.ndarray:
    """Return a list of finite numbers, x and y in turn, as (n,) float64."""
    if not isinstance(values, list) or len(values) % 2 or (count and len(values) != count):
        raise Invalid(f"{where}: expected {count or 'pairs of'} numbers, found {short(values)}")
    try:
        numbers = np.array(values, np.float64)
    except (ValueError, TypeError, OverflowError) as error:
        raise Invalid(f"{where}: expected numbers, found {short(values)}") from error
    if numbers.ndim != 1 or not (np.abs(numbers) <= MOST_PIXELS).all():  # False for NaN, too
        raise Invalid(f"{where}: contains values that are not positions in an image, such as NaN")
    return numbers


def short(value: Any) -> str:
    """Return a value as Python writes it, in at most 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
