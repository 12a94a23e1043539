"""Read the size of an image from its header, and refuse more pixels than the limit before it is decoded."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from types import ModuleType
from typing import BinaryIO

import numpy as np

from utils.base.limits import LARGE_FILES, PIXELS
from utils.data.image_formats import common_size, tiff_size

_HEAD = 2**16  # bytes; enough for nearly all headers
_PER_BYTE = 16  # photos have 2 to 10 pixels for each byte of their file
_COSTLY = ("AVIF", "JPEG2000", "TIFF")
_ORIENTATION = 0x0112  # Exif tag; values from 5 swap width and height


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image says.

    Attributes:
        format: as Pillow names it, such as JPEG; empty if there are too many pixels for Pillow.
        width: pixels, before it is turned.
        height: pixels; 1 if there are too many pixels for Pillow, and `width` is their number.
        turned: whether its Exif data swaps width and height.
        progressive: whether it is a JPEG of several scans.
    """

    format: str
    width: int
    height: int
    turned: bool = False
    progressive: bool = False

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height


@lru_cache(maxsize=1)
def _pillow() -> ModuleType:
    from PIL import Image

    # Of many pixels, for which there is a limit here, and of odd Exif data.
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    return Image


def read_header(
    file: BinaryIO, formats: Sequence[str] | None = None, *, exif: bool = False
) -> ImageHeader | None:
    """Return the header of an image without decoding its pixels; None if Pillow cannot read it.

    Args:
        file: at its start.
        formats: names of the formats to accept; None for all that Pillow knows.
        exif: read Exif data, for `ImageHeader.turned`.
    """
    image = _pillow()
    try:
        with image.open(file, formats=formats) as header:
            width, height = header.size
            # Pillow turns a TIFF itself. A PNG without Exif data before its pixels has none.
            may_turn = exif and header.format not in ("TIFF", "BMP") and "exif" in header.info
            turned = may_turn and header.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
            progressive = "progressive" in header.info
            return ImageHeader(header.format or "", width, height, turned, progressive)
    except image.DecompressionBombError as error:
        count = re.search(r"\((\d+) pixels\)", str(error))
        return ImageHeader("", int(count[1]) if count else 2**31, 1)
    except (OSError, ValueError, SyntaxError, EOFError, OverflowError):
        return None


def header_of(data: np.ndarray, formats: Sequence[str] | None = None) -> ImageHeader | None:
    """Return the header of an image in memory, (n,) uint8; see `read_header`."""
    if (found := common_size(data)) and (formats is None or found[0] in formats):
        return ImageHeader(*found)
    header = read_header(BytesIO(data[:_HEAD].data), formats)
    if header is None and data.size > _HEAD:
        header = read_header(BytesIO(data.data), formats)
    if formats is None and (size := tiff_size(data)) and (header is None or header.format == "TIFF"):
        # Pillow cannot open all, and of a tag that is repeated it takes another one than OpenCV.
        return max(filter(None, (header, ImageHeader("TIFF", *size))), key=lambda one: one.pixels)
    return header


def check_pixels(data: np.ndarray, name: object, most: int = 0) -> None:
    """Refuse an image whose header names too many pixels, so that it is never decoded.

    Args:
        data: the bytes of the file, (n,) uint8.
        name: name of the image in the message.
        most: accept so many pixels even where the limit is lower.

    Raises:
        DataError: too many pixels, see `check_header`.
    """
    if (header := header_of(data)) and header.pixels > most:
        check_header(header, data.size, name)


def check_header(header: ImageHeader, size: int, name: object) -> None:
    """Refuse an image of more than YOLOV5_MAX_PIXELS, see `check_count`.

    Args:
        header: of the image; of formats whose decoders take twice the memory, half the pixels are accepted.
        size: bytes of the file.
        name: name of the file in the message.

    Raises:
        DataError: too many pixels.
    """
    check_count(header.pixels, size, name, 2 if header.format in _COSTLY else 1)


def check_count(pixels: int, size: int, name: object, part: int = 1) -> None:
    """Refuse more pixels than YOLOV5_MAX_PIXELS; a file as large as photos are may have 4 times as many.

    Args:
        pixels: of an image or a frame of a video.
        size: bytes of the file, which stand for `_PER_BYTE` pixels each.
        name: name of the file in the message.
        part: the limits are divided by this.

    Raises:
        DataError: too many pixels.
    """
    if pixels > min(size * _PER_BYTE, LARGE_FILES * PIXELS.value) // part:
        PIXELS.check(pixels, str(name), part)
