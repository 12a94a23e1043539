"""Recognise image formats by their first bytes; count pages; say why an image cannot be read."""

from __future__ import annotations

import re
import struct
from io import BytesIO

import cv2
import numpy as np

HEAD = 32  # bytes that `image_format` needs
UNREADABLE = "HEIC", "JPEG XL"  # neither OpenCV nor Pillow read these

_SIGNATURES = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",
    b"MM\0+": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xffO\xffQ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
}
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF"}  # of ISO base media files; what videos have is not listed
_HEIC_BRANDS = b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"


def image_format(head: bytes) -> str:
    """Return the format of an image, such as `JPEG`, from its first `HEAD` bytes; empty if it is another."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        # AVIF files of some cameras start with the general brand and name their own after it.
        for brand in (head[8:12], *(head[start : start + 4] for start in range(16, HEAD, 4))):
            if brand in _BRANDS:
                return _BRANDS[brand]
        return "HEIC" if head[8:12] in _HEIC_BRANDS else ""
    return next((name for start, name in _SIGNATURES.items() if head.startswith(start)), "")


def page_count(data: np.ndarray) -> int:
    """Return the number of pages of a TIFF, or of frames of an animated WebP; 1 for other images.

    Args:
        data: the bytes of the file, (n,) uint8.
    """
    head = data[:HEAD].tobytes()
    found = image_format(head)
    if found == "TIFF":
        return _directories(data)
    if found != "WEBP" or head[12:16] != b"VP8X" or not head[20] & 2:  # a flag says that it is animated
        return 1
    from PIL import Image

    try:
        with Image.open(BytesIO(data.tobytes())) as image:
            return int(getattr(image, "n_frames", 1))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return 1  # what OpenCV can read counts


def _directories(data: np.ndarray) -> int:
    """Return the number of image directories of a TIFF or BigTIFF, of which each names the next."""
    order = "<" if data[0] == ord("I") else ">"
    content = data.data  # not copied: the image may be large
    big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
    count_type, offset_type, entry = ("Q", "Q", 20) if big else ("H", "I", 12)
    seen: set[int] = set()
    try:
        (offset,) = struct.unpack_from(order + offset_type, content, 8 if big else 4)
        while offset and offset not in seen:
            (entries,) = struct.unpack_from(order + count_type, content, offset)
            seen.add(offset)
            after = offset + struct.calcsize(count_type) + entries * entry
            (offset,) = struct.unpack_from(order + offset_type, content, after)
    except struct.error:  # truncated; what OpenCV can read counts
        pass
    return max(len(seen), 1)


def decode_with_pillow(data: np.ndarray) -> np.ndarray | None:
    """Decode AVIF or JPEG 2000 to BGR uint8 (H, W, 3), where OpenCV is built without it; None if it cannot.

    Args:
        data: the bytes of the file, (n,) uint8.
    """
    if image_format(data[:HEAD].tobytes()) not in ("AVIF", "JPEG 2000"):
        return None
    from PIL import Image, ImageOps

    try:
        with Image.open(BytesIO(data.tobytes())) as image:
            rgb = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return np.ascontiguousarray(rgb[..., ::-1])


def why_unreadable(data: np.ndarray) -> str:
    """Return why an image that could not be decoded is not read, and what helps.

    Args:
        data: the bytes of the file, (n,) uint8.
    """
    found = image_format(data[:HEAD].tobytes())
    if found in UNREADABLE:
        return f"{found} cannot be read here; convert it to JPEG, for example: {convert(found)}"
    try:
        if data.size:
            cv2.imdecode(data, cv2.IMREAD_COLOR)
    except cv2.error as error:
        if limit := re.search(r"CV_IO_MAX_IMAGE_(\w+)", str(error)):
            name = limit[1].lower()
            most = {"pixels": 1 << 30}.get(name, 1 << 20)
            return (
                f"it has {_size(data)}, OpenCV's limit is {most} {'' if name == 'pixels' else 'of '}{name}; "
                f"cut it into tiles, or set the environment variable OPENCV_IO_MAX_IMAGE_{limit[1]}"
            )
    return "not an image that can be read (corrupt, or another format)"


def convert(found: str) -> str:
    """Return a command that converts an image of a format in `UNREADABLE` to JPEG."""
    return "heif-convert NAME.heic NAME.jpg" if found == "HEIC" else "djxl NAME.jxl NAME.jpg"


def _size(data: np.ndarray) -> str:
    """Return the size of an image that is too large to decode, from its header."""
    from PIL import Image

    try:
        with Image.open(BytesIO(data.tobytes())) as image:
            return f"{image.width}x{image.height} pixels"
    except Image.DecompressionBombError as error:
        return (re.search(r"\d+ pixels", str(error)) or ["too many pixels"])[0]
    except (OSError, ValueError, SyntaxError):
        return "too many pixels"
