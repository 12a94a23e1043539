"""What one request asks for, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from serve.errors import RequestError
from serve.serve_options import ServeOptions

KNOWN = ("conf", "iou", "imgsz", "classes", "format")


@dataclass(frozen=True)
class RequestParams:
    """Thresholds, the input's longer side in pixels, the only classes to report, and JSON or image."""

    conf: float
    iou: float
    imgsz: int
    classes: tuple[int, ...] | None = None
    image: bool = False


def read_params(
    values: Mapping[str, str],
    accept: str,
    options: ServeOptions,
    imgsz: int,
    fixed: bool,
    names: Mapping[int, str],
) -> RequestParams:
    """Check the parameters of a request, from its address and its form.

    Args:
        values: by name, as text; absent or empty ones take the server's defaults.
        accept: the header of that name, which may ask for an image instead of JSON.
        options: of the server.
        imgsz: the model's default.
        fixed: the model takes no other.
        names: the model's classes.

    Raises:
        RequestError: 422, with the parameter, its value, and what would be right.
    """
    if unknown := sorted(set(values) - set(KNOWN)):
        raise RequestError(422, f"no parameter is called {unknown[0][:40]!r}; there are {', '.join(KNOWN)}")
    given = {key: value.strip() for key, value in values.items() if value.strip()}
    side = _whole("imgsz", given.get("imgsz", str(imgsz)), 32, max(options.max_imgsz, imgsz))
    if fixed and side != imgsz:
        raise _wrong("imgsz", str(side), f"{imgsz}, the only size that this model takes")
    return RequestParams(
        conf=_fraction("conf", given.get("conf", str(options.conf_thres))),
        iou=_fraction("iou", given.get("iou", str(options.iou_thres))),
        imgsz=side,
        classes=_classes(given["classes"], names) if "classes" in given else None,
        image=_wants_image(given.get("format", ""), accept),
    )


def _fraction(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # NaN fails here, too
        raise _wrong(key, text, "a number from 0 to 1")
    return value


def _whole(key: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
        raise _wrong(key, text, f"a whole number from {least} to {most}")
    return int(text)


def _classes(text: str, names: Mapping[int, str]) -> tuple[int, ...]:
    """Numbers or names, with commas in between."""
    by_name = {name: index for index, name in names.items()}
    found = []
    for word in (word.strip() for word in text.split(",")):
        index = by_name.get(word, int(word) if word.isascii() and word.isdigit() and len(word) < 6 else -1)
        if index not in names:
            raise _wrong(
                "classes", word, f"numbers from 0 to {max(names, default=0)} or class names, with commas"
            )
        found.append(index)
    return tuple(found)


def _wants_image(form: str, accept: str) -> bool:
    if form not in ("", "json", "image"):
        raise _wrong("format", form, "json or image")
    if form:
        return form == "image"
    first = accept.split(",")[0].split(";")[0].strip().lower()
    return first in ("image/jpeg", "image/*")


def _wrong(key: str, value: str, expected: str) -> RequestError:
    return RequestError(422, f"{key}={value[:40]}: expected {expected}")
