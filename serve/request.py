"""Read a detection request: its form, its parameters and its image."""

from __future__ import annotations

import math
import warnings
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from io import BytesIO

import cv2
import numpy as np
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from serve.serve_options import ServeOptions
from utils.base.errors import DataError, one_line
from utils.data.images import decode_image

FILE_FIELD = "image"
MAX_FIELDS, MAX_FIELD_BYTES = 16, 4096
_OVERHEAD = MAX_FIELDS * 2 * MAX_FIELD_BYTES  # bytes of text fields and part headers beside the image
PARAMETERS = ("conf", "iou", "imgsz", "classes", "masks", "format")
MASK_FORMATS = ("none", "polygon", "rle")
# Known by their content, whatever the file name. Other formats that PIL or OpenCV could open are left out:
# their decoders are rarely reviewed, and clients are not trusted. MPO counts as JPEG.
IMAGE_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


class RequestError(Exception):
    """An invalid request, with an HTTP status and a message of one line for the client."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass
class Form:
    """Content of a form: text fields by name, and the bytes of the image file, None without one."""

    fields: dict[str, str] = field(default_factory=dict)
    file: bytes | None = None


async def read_form(
    content_type: str, length: str | None, chunks: AsyncIterator[bytes], max_file: int
) -> Form:
    """Parse multipart/form-data as it arrives: in memory, and no more than is allowed.

    Starlette's own form parser would write larger files to disk and check their size only afterwards.

    Args:
        content_type: the header, with the boundary.
        length: the header Content-Length, which may be absent or wrong.
        chunks: the body as it arrives.
        max_file: maximum size of the file in bytes.

    Raises:
        RequestError: 415 not a form, 413 too large (the rest is not read), 400 a damaged form.
    """
    builder = _FormBuilder(max_file)
    received = 0
    try:
        parser = builder.parser(content_type)
        if length is not None and length.isdigit() and int(length) > max_file + _OVERHEAD:
            raise _too_large(max_file)
        async for chunk in chunks:
            received += len(chunk)
            if received > max_file + _OVERHEAD:
                raise _too_large(max_file)
            parser.write(chunk)
    except (TypeError, ValueError) as error:  # FormParserError, and what older parsers of headers raise
        raise RequestError(400, f"the form cannot be read: {one_line(error)}") from error
    if not builder.complete:
        raise RequestError(400, "the form is cut off")
    return builder.form


class _FormBuilder:
    """Collector of the parts of a form, as the parser completes them."""

    def __init__(self, max_file: int) -> None:
        self.form = Form()
        self.complete = False
        self._max_file = max_file
        self._count = 0

    def parser(self, content_type: str) -> FormParser:
        """Return a parser that keeps files in memory and reports to this builder."""
        media_type, parameters = parse_options_header(content_type)
        if media_type != b"multipart/form-data" or not parameters.get(b"boundary"):
            raise RequestError(415, f"send multipart/form-data with the image in the field {FILE_FIELD!r}")
        return FormParser(
            "multipart/form-data",
            lambda part: self._add(part, part.value or b""),
            self._add_file,
            self._end,
            parameters[b"boundary"],
            config={"MAX_MEMORY_FILE_SIZE": math.inf},
        )

    def _add_file(self, file: File) -> None:
        file.file_object.seek(0)
        self._add(file, file.file_object.read())

    def _add(self, part: Field | File, content: bytes) -> None:
        self._count += 1
        if self._count > MAX_FIELDS:
            raise RequestError(400, f"the form has more than {MAX_FIELDS} fields")
        name = (part.field_name or b"").decode("utf-8", "replace")
        if name != FILE_FIELD:
            if len(content) > MAX_FIELD_BYTES:
                raise RequestError(400, f"the field {name[:40]!r} of the form is too long")
            self.form.fields[name] = content.decode("utf-8", "replace")
            return
        if len(content) > self._max_file:
            raise _too_large(self._max_file)
        if self.form.file is not None:
            raise RequestError(400, f"the form has several {name!r} fields; send one image per request")
        self.form.file = content

    def _end(self) -> None:
        self.complete = True


def _too_large(limit: int) -> RequestError:
    return RequestError(413, f"the upload is larger than {limit / 2**20:g} MB")


@dataclass(frozen=True)
class RequestParams:
    """Parameters of a detection request.

    Attributes:
        conf: confidence threshold.
        iou: NMS IoU threshold.
        imgsz: input size in pixels, the longer side.
        classes: the only classes to return; None for all.
        masks: one of `MASK_FORMATS`.
        image: whether to return the annotated image instead of JSON.
    """

    conf: float
    iou: float
    imgsz: int
    classes: tuple[int, ...] | None = None
    masks: str = "none"
    image: bool = False


def read_params(
    values: Mapping[str, str],
    accept: str,
    options: ServeOptions,
    imgsz: int,
    fixed: bool,
    names: Mapping[int, str],
    segments: bool = False,
) -> RequestParams:
    """Parse and check the parameters of a request, from its query string and its form.

    Args:
        values: text by name; absent or empty parameters take the server's defaults.
        accept: the Accept header, which may ask for an image instead of JSON.
        options: options of the server.
        imgsz: default input size of the model.
        fixed: whether that is the only one.
        names: class names of the model.
        segments: whether it is a segmentation model.

    Raises:
        RequestError: 422, with the parameter, its value and what is expected.
    """
    if unknown := sorted(set(values) - set(PARAMETERS)):
        raise RequestError(422, f"unknown parameter {unknown[0][:40]!r}; expected {', '.join(PARAMETERS)}")
    given = {key: value.strip() for key, value in values.items() if value.strip()}
    side = _integer("imgsz", given.get("imgsz", str(imgsz)), 32, max(options.max_imgsz, imgsz))
    if fixed and side != imgsz:
        raise _invalid("imgsz", str(side), f"{imgsz}, the only input size of this model")
    return RequestParams(
        conf=_fraction("conf", given.get("conf", str(options.conf_thres))),
        iou=_fraction("iou", given.get("iou", str(options.iou_thres))),
        imgsz=side,
        classes=_classes(given["classes"], names) if "classes" in given else None,
        masks=_mask_format(given.get("masks", "polygon" if segments else "none"), segments),
        image=_wants_image(given.get("format", ""), accept),
    )


def _fraction(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:  # false for NaN, too
        raise _invalid(key, text, "a number from 0 to 1")
    return value


def _integer(key: str, text: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
        raise _invalid(key, text, f"an integer from {least} to {most}")
    return int(text)


def _classes(text: str, names: Mapping[int, str]) -> tuple[int, ...]:
    """Parse class numbers or names, separated by commas."""
    by_name = {name: index for index, name in names.items()}
    indices = []
    for word in (word.strip() for word in text.split(",")):
        index = by_name.get(word, int(word) if word.isascii() and word.isdigit() and len(word) < 6 else -1)
        if index not in names:
            last = max(names, default=0)
            raise _invalid("classes", word, f"numbers from 0 to {last} or class names, separated by commas")
        indices.append(index)
    return tuple(indices)


def _mask_format(text: str, segments: bool) -> str:
    if text not in MASK_FORMATS:
        raise _invalid("masks", text, "none, polygon or rle")
    if text != "none" and not segments:
        raise _invalid("masks", text, "none, as this model has no masks")
    return text


def _wants_image(form: str, accept: str) -> bool:
    if form not in ("", "json", "image"):
        raise _invalid("format", form, "json or image")
    if form:
        return form == "image"
    first = accept.split(",")[0].split(";")[0].strip().lower()
    return first in ("image/jpeg", "image/*")


def _invalid(key: str, value: str, expected: str) -> RequestError:
    return RequestError(422, f"{key}={value[:40]}: expected {expected}")


def read_image(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode an image file to BGR uint8 (H, W, 3), rotated upright; see `utils.data.images.decode_image`.

    Raises:
        RequestError: 415 not an image, or a damaged one; 413 more than `max_pixels`.
    """
    image_format, (width, height) = read_header(content)
    if width * height > max_pixels:
        raise RequestError(
            413, f"the image has {width}x{height} pixels; the limit is {max_pixels / 1e6:g} megapixels"
        )
    if image_format == "GIF":
        return _first_frame(content)
    try:
        image = decode_image(np.frombuffer(content, np.uint8), "image")
    except DataError as error:
        raise RequestError(415, str(error)) from error
    if image.shape[0] * image.shape[1] != width * height:  # PIL and OpenCV disagree: trust neither
        raise RequestError(415, "image: its header and its contents differ in size")
    return image


def read_header(content: bytes) -> tuple[str, tuple[int, int]]:
    """Return the format and (width, height) of an image file without decoding its pixels.

    Raises:
        RequestError: 415 not one of `IMAGE_FORMATS`; 413 far too large.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
            with Image.open(BytesIO(content), formats=IMAGE_FORMATS) as header:
                return str(header.format), header.size
    except Image.DecompressionBombError as error:
        raise RequestError(413, "the image has far too many pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        expected = ", ".join(IMAGE_FORMATS)
        raise RequestError(415, f"image: unknown format; expected one of {expected}") from error


def _first_frame(content: bytes) -> np.ndarray:
    """Decode the first frame of a GIF, which only recent versions of OpenCV can read."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=("GIF",)) as image:
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(415, "image: not an image that can be read (damaged)") from error
