"""Read the form of a request, and its image."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BytesIO

import cv2
import numpy as np
from python_multipart.multipart import Field, File, FormParser, parse_options_header

from utils.base.errors import DataError, one_line
from utils.data.image_header import header_of
from utils.data.images import decode_image

FILE_FIELD = "image"
MAX_FIELDS, MAX_FIELD_BYTES = 16, 4096
_OVERHEAD = MAX_FIELDS * 2 * MAX_FIELD_BYTES  # bytes of text fields and part headers beside the image
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


def read_image(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode an image file to BGR uint8 (H, W, 3), rotated upright; see `utils.data.images.decode_image`.

    Raises:
        RequestError: 415 not an image, or a damaged one; 413 more than `max_pixels`.
    """
    header = header_of(np.frombuffer(content, np.uint8), IMAGE_FORMATS)
    if header is None:
        expected = ", ".join(IMAGE_FORMATS)
        raise RequestError(415, f"image: unknown format; expected one of {expected}")
    if header.pixels > max_pixels:
        size = f"{header.width}x{header.height}" if header.format else f"{header.pixels:,}"
        raise RequestError(413, f"the image has {size} pixels; the limit is {max_pixels / 1e6:g} megapixels")
    if header.format == "GIF":
        return _first_frame(content)
    try:
        image = decode_image(np.frombuffer(content, np.uint8), "image", max_pixels=max_pixels)
    except DataError as error:
        raise RequestError(415, str(error)) from error
    if image.shape[0] * image.shape[1] != header.pixels:  # PIL and OpenCV disagree: trust neither
        raise RequestError(415, "image: its header and its contents differ in size")
    return image


def _first_frame(content: bytes) -> np.ndarray:
    """Decode the first frame of a GIF, which only recent versions of OpenCV can read."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=("GIF",)) as image:
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(415, "image: not an image that can be read (damaged)") from error
