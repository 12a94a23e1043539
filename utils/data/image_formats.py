"""Recognise image formats by their first bytes; count pages; say why an image cannot be read."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from io import BytesIO

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.limits import PIXELS

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
_MOST_SCANS, _MOST_CHUNKS = 50, 1000  # programs write about 10 scans, and fewer than 100 chunks
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # within the pixels of a JPEG
_TILE_WIDTH, _TILE_LENGTH = 322, 323  # tags of a TIFF
_INTEGERS = {3: "H", 4: "I", 16: "Q"}  # types of values of a TIFF
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


def common_size(data: np.ndarray) -> tuple[str, int, int] | None:
    """Return (format, width, height) of a JPEG or PNG from its header, in microseconds; None for others.

    Args:
        data: the bytes of the file, (n,) uint8.
    """
    content = data.data
    try:
        if content[:8] == b"\x89PNG\r\n\x1a\n":
            return ("PNG", *struct.unpack_from(">II", content, 16))
        position = 2 if content[:3] == b"\xff\xd8\xff" else len(content)
        while True:
            marker, kind, length = struct.unpack_from(">BBH", content, position)
            if marker != 0xFF or kind in (0xD9, 0xDA):
                return None  # damaged, or pixels without a frame header
            if kind == 0xFF:  # a fill byte
                position += 1
            elif 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
                height, width = struct.unpack_from(">HH", content, position + 5)
                return "JPEG", width, height
            else:
                position += 2 + length
    except struct.error:  # truncated
        return None


def check_excess(data: np.ndarray, name: object) -> None:
    """Refuse an image with something that would cost far more than its size: memory, time or lines of a log.

    Args:
        data: the bytes of the file, (n,) uint8.
        name: name of the file in the message.

    Raises:
        DataError: more scans, parts or pixels of a tile than any program writes.
    """
    if reason := _excess(data):
        raise DataError(f"{name}: not an image that can be read ({reason})")


def _excess(data: np.ndarray) -> str:
    found = image_format(data[:HEAD].tobytes())
    if found == "PNG":
        return _excess_of_png(data.data)
    if found == "JPEG":
        return f"more than {_MOST_SCANS} scans" if _has_many_scans(data.data) else ""
    if found == "TIFF":
        tags = dict(reversed(list(next(_tags(data), []))))  # of a tag that is repeated, the first counts
        if tags.get(_TILE_WIDTH, 0) * tags.get(_TILE_LENGTH, 0) > PIXELS.value:
            return f"tiles of more than {PIXELS.value:,} pixels"
    return ""


def _excess_of_png(content: memoryview) -> str:
    """Walk over the chunks: OpenCV takes the memory that one claims to need, and logs each that is wrong."""
    position, others = 8, 0
    while position + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, position)
        if length > len(content):
            return f"a part of {length:,} bytes, which it does not contain"
        if kind == b"IEND":
            return ""
        others += kind != b"IDAT"
        if others > _MOST_CHUNKS:
            return f"more than {_MOST_CHUNKS} parts beside its pixels"
        position += length + 12  # with length, type and check sum
    return "its end is missing"  # OpenCV would take some bytes for the length of a part


def _has_many_scans(content: memoryview) -> bool:
    """Return whether a JPEG has more scans than any program writes: each is a pass over all pixels."""
    position, components, progressive, scans = 2, 0, False, 0
    try:
        while scans <= _MOST_SCANS:
            marker, kind, length = struct.unpack_from(">BBH", content, position)
            if marker != 0xFF or kind == 0xD9:
                return False
            if kind == 0xFF:  # a fill byte
                position += 1
                continue
            if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
                components, progressive = content[position + 9], kind in (0xC2, 0xC6, 0xCA, 0xCE)
            position += 2 + length
            if kind == 0xDA:
                if not progressive and content[position - length + 2] >= components:
                    return False  # all is in one scan, as in most files
                scans += 1
                found = _MARKER.search(content, position)
                position = found.start() if found else len(content)
    except (struct.error, IndexError):  # truncated
        return False
    return True


def tiff_size(data: np.ndarray) -> tuple[int, int] | None:
    """Return (width, height) of the first image of a TIFF or BigTIFF; None for other and damaged files.

    Args:
        data: the bytes of the file, (n,) uint8.
    """
    if image_format(data[:HEAD].tobytes()) != "TIFF":
        return None
    sides: dict[int, int] = {}
    for tag, value in next(_tags(data), []):
        if tag in (256, 257):
            sides.setdefault(tag, value)  # of a tag that is repeated, libtiff takes the first
    return (sides[256], sides[257]) if len(sides) == 2 else None


def _directories(data: np.ndarray) -> int:
    """Return the number of image directories of a TIFF or BigTIFF."""
    return max(sum(1 for _ in _tags(data)), 1)  # what OpenCV can read counts


def _tags(data: np.ndarray) -> Iterator[Iterator[tuple[int, int]]]:
    """Yield the tags and values of integers of each directory, of which each names the next."""
    order = "<" if data[0] == ord("I") else ">"
    content = data.data  # not copied: the image may be large
    seen: set[int] = set()
    try:
        big = struct.unpack_from(f"{order}H", content, 2)[0] == 43
        count, offset_type, entry = ("Q", "Q", "HHQQ") if big else ("H", "I", "HHII")
        (offset,) = struct.unpack_from(order + offset_type, content, 8 if big else 4)
        while offset and offset not in seen:
            (entries,) = struct.unpack_from(order + count, content, offset)
            seen.add(offset)
            start = offset + struct.calcsize(count)
            after = start + entries * struct.calcsize(order + entry)
            (offset,) = struct.unpack_from(order + offset_type, content, after)
            yield _values(content[start:after], order, entry)
    except (struct.error, OverflowError):  # truncated, or an offset that cannot be
        return


def _values(directory: memoryview, order: str, entry: str) -> Iterator[tuple[int, int]]:
    head, size = struct.calcsize(f"{order}{entry[:-1]}"), struct.calcsize(order + entry)
    for start in range(0, len(directory), size):
        tag, kind = struct.unpack_from(f"{order}HH", directory, start)
        # They are at the start of their field; one of 64 bits does not fit into that of a TIFF of 32 bits.
        if kind in _INTEGERS and head + struct.calcsize(_INTEGERS[kind]) <= size:
            yield tag, struct.unpack_from(order + _INTEGERS[kind], directory, start + head)[0]


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
            ImageOps.exif_transpose(image, in_place=True)
            rgb = np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)


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
            return _beyond(limit[1].lower())
    return "not an image that can be read (corrupt, or another format)"


def convert(found: str) -> str:
    """Return a command that converts an image of a format in `UNREADABLE` to JPEG."""
    return "heif-convert NAME.heic NAME.jpg" if found == "HEIC" else "djxl NAME.jxl NAME.jpg"


def _beyond(what: str) -> str:
    """Return the message for an image beyond a limit of OpenCV, whose header Pillow does not know."""
    if what == "pixels":
        return f"more than {PIXELS.value:,} {PIXELS.what}; if you trust the file, raise {PIXELS.variable}"
    return (
        f"its {what} is more than {1 << 20} pixels, OpenCV's limit; cut it into tiles, or set the "
        f"environment variable OPENCV_IO_MAX_IMAGE_{what.upper()}"
    )
