"""Parameters of requests: parsed from the text of a query string or form, and checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from serve.request import RequestError

PARAMETERS = ("conf", "iou", "imgsz", "classes", "masks", "format")  # of any model
MASK_FORMATS = ("none", "polygon", "rle")
FORMATS = ("json", "image", "plain")
MIN_IMGSZ = 32


@dataclass(frozen=True)
class RequestParams:
    """Parameters of a request.

    Attributes:
        imgsz: input size in pixels, the longer side.
        format: one of `FORMATS`.
    """

    imgsz: int
    format: str


@dataclass(frozen=True)
class DetectionParams(RequestParams):
    """Parameters of a request for boxes.

    Attributes beside those of `RequestParams`:
        conf: confidence threshold.
        iou: NMS IoU threshold.
        classes: the only classes to return; None for all.
        masks: one of `MASK_FORMATS`.
    """

    conf: float
    iou: float
    classes: tuple[int, ...] | None = None
    masks: str = "none"


def check_names(values: Mapping[str, str], accepted: Sequence[str], model: str) -> dict[str, str]:
    """Return the parameters that are not empty; empty ones take the server's defaults.

    Args:
        values: text by name.
        accepted: names of the parameters of the model.
        model: what it is, for the message.

    Raises:
        RequestError: 422, a name that no model knows, or one that does not apply to this model.
    """
    expected = ", ".join(accepted)
    if unknown := sorted(set(values) - set(PARAMETERS)):
        raise RequestError(422, f"unknown parameter {unknown[0][:40]!r}; expected {expected}")
    given = {key: value.strip() for key, value in values.items() if value.strip()}
    if useless := sorted(set(given) - set(accepted)):
        raise RequestError(422, f"{useless[0]} applies to boxes, and {model}; expected {expected}")
    return given


def read_fraction(key: str, text: str) -> float:
    """Return a number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # false for NaN, too
        raise invalid(key, text, "a number from 0 to 1")
    return value


def read_integer(key: str, text: str, least: int, most: int) -> int:
    """Return an integer in a range."""
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
        raise invalid(key, text, f"an integer from {least} to {most}")
    return int(text)


def read_classes(text: str, names: Mapping[int, str]) -> tuple[int, ...]:
    """Parse class numbers or names, separated by commas."""
    by_name = {name: index for index, name in names.items()}
    indices = []
    for word in (word.strip() for word in text.split(",")):
        index = by_name.get(word, int(word) if word.isascii() and word.isdigit() and len(word) < 6 else -1)
        if index not in names:
            last = max(names, default=0)
            raise invalid("classes", word, f"numbers from 0 to {last} or class names, separated by commas")
        indices.append(index)
    return tuple(indices)


def read_mask_format(text: str, segments: bool) -> str:
    """Return one of `MASK_FORMATS`; models without masks have none."""
    if text not in MASK_FORMATS:
        raise invalid("masks", text, "none, polygon or rle")
    if text != "none" and not segments:
        raise invalid("masks", text, "none, as this model has no masks")
    return text


def read_format(text: str, accept: str) -> str:
    """Return one of `FORMATS`; without the parameter, the header Accept may ask for an image."""
    if text:
        if text not in FORMATS:
            raise invalid("format", text, "json, image or plain")
        return text
    first = accept.split(",")[0].split(";")[0].strip().lower()
    return "image" if first in ("image/jpeg", "image/*") else "json"


def invalid(key: str, value: str, expected: str) -> RequestError:
    """Return the error of a parameter with an invalid value."""
    return RequestError(422, f"{key}={value[:40]}: expected {expected}")
