"""From the bytes of an upload to an image, and no further than its header if that is too much."""

from __future__ import annotations

import warnings
from io import BytesIO

import cv2
import numpy as np

from serve.errors import RequestError
from utils.base.errors import DataError
from utils.data.images import decode_image

# Kinds by content, whatever the file is called. Others that PIL or OpenCV could open are left out: their
# decoders are rarely looked at, and strangers choose what these have to read. MPO counts as JPEG.
KINDS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


def read_image(content: bytes, max_pixels: int) -> np.ndarray:
    """Decode an upload to BGR uint8 (H, W, 3), upright; see `utils.data.images.decode_image`.

    Raises:
        RequestError: 415 for what is no image or damaged, 413 for one of more than `max_pixels`.
    """
    kind, (width, height) = look_at_header(content)
    if width * height > max_pixels:
        raise RequestError(
            413, f"the image has {width}x{height} pixels; at most {max_pixels / 1e6:g} million are read"
        )
    if kind == "GIF":
        return _first_frame(content)
    try:
        image = decode_image(np.frombuffer(content, np.uint8), "image")
    except DataError as error:
        raise RequestError(415, str(error)) from error
    if image.shape[0] * image.shape[1] != width * height:  # two readers of one file disagree: trust neither
        raise RequestError(415, "image: its header and its contents differ in size")
    return image


def look_at_header(content: bytes) -> tuple[str, tuple[int, int]]:
    """Kind and (width, height) of an image, of which no pixel is decoded.

    Raises:
        RequestError: 415, none of `KINDS`; 413, absurdly large.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # we have a limit of our own
            with Image.open(BytesIO(content), formats=KINDS) as header:
                return str(header.format), header.size
    except Image.DecompressionBombError as error:
        raise RequestError(413, "the image has far too many pixels") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(415, f"image: no image of a known kind ({', '.join(KINDS)})") from error


def encode_jpeg(image: np.ndarray) -> bytes:
    """An image (H, W, 3) BGR as the bytes of a JPEG."""
    done, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise RequestError(
            422, f"an image of {image.shape[1]}x{image.shape[0]} pixels does not fit into a JPEG"
        )
    return content.tobytes()


def _first_frame(content: bytes) -> np.ndarray:
    """A GIF's first frame; OpenCV reads them only in recent versions."""
    from PIL import Image

    try:
        with Image.open(BytesIO(content), formats=("GIF",)) as image:
            return cv2.cvtColor(np.asarray(image.convert("RGB")), cv2.COLOR_RGB2BGR)
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise RequestError(415, "image: not an image that can be read (damaged)") from error
