"""Read images of any common format as 8-bit BGR, turned as their Exif data says."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np

from utils.base.errors import DataError, is_out_of_memory, one_line
from utils.base.inputs import file_size, open_file
from utils.base.limits import IMAGE
from utils.data.image_formats import check_excess, decode_with_pillow, why_unreadable
from utils.data.image_header import ImageHeader, check_header, check_pixels, read_header

IMAGE_SUFFIXES = (".bmp", ".dng", ".jpeg", ".jpg", ".mpo", ".png", ".tif", ".tiff", ".webp", ".pfm")
# Read by detect.py, too. In datasets they are no images, as in YOLOv5.
SOURCE_SUFFIXES = (*IMAGE_SUFFIXES, ".jfif", ".jp2", ".avif")
VIDEO_SUFFIXES = (
    ".asf", ".avi", ".gif", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".wmv",
)  # fmt: skip

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PFM_STARTS = (b"PF", b"Pf")
_RADIANCE = b"#?"  # not a format of datasets; a small file may decode to gigabytes of floats
_SHRINK_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}
_KNOWN_HEADERS = ("BMP", "JPEG", "MPO", "PNG", "TIFF", "WEBP")  # formats whose sizes PIL reads as OpenCV does


def is_image(path: str | Path) -> bool:
    """Return whether the suffix is one of an image, in upper or lower case."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_video(path: str | Path) -> bool:
    """Return whether the suffix is one of a video, in upper or lower case."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as BGR uint8 (H, W, 3), turned as its Exif data says; see `decode_image`.

    Raises:
        DataError: no such file, or not an image.
    """
    return decode_image(read_bytes(path), path)


def decode_image(data: np.ndarray, name: str | Path, shrink: int = 1, max_pixels: int = 0) -> np.ndarray:
    """Decode the bytes of an image, (n,) uint8, to BGR uint8 (H, W, 3), turned as its Exif data says.

    Of 16-bit images the upper 8 bits are kept; floats 0-1 become 0-255; gray is repeated to three
    channels; transparency is dropped. A truncated JPEG is returned as far as it goes.

    Args:
        data: the bytes.
        name: name of the image in error messages.
        shrink: decode a JPEG to 1/2, 1/4 or 1/8 of its sides, rounded up, which is faster; other formats
            are decoded at full size.
        max_pixels: accept so many pixels even where `YOLOV5_MAX_PIXELS` is lower.

    Raises:
        DataError: not an image, or with too many pixels.
    """
    check_pixels(data, name, max_pixels)
    check_excess(data, name)
    flags = _SHRINK_FLAGS[shrink if data[:2].tobytes() == _JPEG_START else 1]
    image = _decode(data, flags)
    if image is None and _is_truncated_jpeg(data):
        image = _decode(np.concatenate((data, np.frombuffer(_JPEG_END, np.uint8))), flags)
    if image is None:
        image = decode_with_pillow(data)
    if image is None:
        raise DataError(f"{name}: {why_unreadable(data)}")
    return image


def image_size(path: str | Path) -> tuple[int, int]:
    """Return (width, height) of an image as `read_image` returns it, from its header if possible.

    Raises:
        DataError: no such file, or not an image.
    """
    with _open(path) as file:
        return _size(_header(file, path), file, path)


def check_image(path: str | Path, content: bytes | None = None) -> tuple[int, int]:
    """Return (width, height) of an image, as `image_size` does, and detect what `decode_image` would refuse.

    The pixels are not decoded. Truncated JPEG and PNG files are detected, too; other damage to pixels is not.

    Args:
        path: the file, or its name in error messages where `content` is given.
        content: the bytes of the file, if they have been read already.

    Raises:
        DataError: unreadable, truncated or beyond a limit.
    """
    with _open(path) if content is None else BytesIO(content) as file:
        header = _header(file, path)
        size = _size(header, file, path)
        head, tail = _both_ends(file)
        if head.startswith(_JPEG_START) and _JPEG_END not in tail:
            bottom = _decode_file(file, path)[-16:]
            if (bottom == bottom[:1, :1]).all():  # the decoder repeats one row for all that are missing
                raise DataError(f"{path}: the JPEG is truncated")
        elif head.startswith(b"\x89PNG") and b"IEND" not in tail:
            raise DataError(f"{path}: the PNG is truncated")
        if header is not None and (header.format in ("PNG", "TIFF") or header.progressive):
            data = _content(file, path)  # for JPEGs of one scan, which most are, the header suffices
            check_pixels(data, path)
            check_excess(data, path)
        return size


def read_bytes(path: str | Path) -> np.ndarray:
    """Read a file as (n,) uint8.

    Raises:
        DataError: it cannot be read, or is too large.
    """
    try:
        IMAGE.check(file_size(path), str(path))
        return np.fromfile(path, np.uint8)  # cv2.imread fails on unusual characters on Windows
    except OSError as error:
        raise _unreadable(path, error) from error


def _open(path: str | Path) -> BinaryIO:
    try:
        return open_file(path)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str | Path, error: OSError) -> DataError:
    reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror or error
    return DataError(f"{path}: {reason}")


def _content(file: BinaryIO, name: str | Path) -> np.ndarray:
    IMAGE.check(file.seek(0, 2), str(name))
    file.seek(0)
    return np.frombuffer(file.read(), np.uint8)


def _decode_file(file: BinaryIO, name: str | Path) -> np.ndarray:
    return decode_image(_content(file, name), name)


def _header(file: BinaryIO, name: str | Path) -> ImageHeader | None:
    header = read_header(file, exif=True)
    if header is not None:
        check_header(header, file.seek(0, 2), name)
    return header


def _size(header: ImageHeader | None, file: BinaryIO, name: str | Path) -> tuple[int, int]:
    if header is not None and header.format in _KNOWN_HEADERS:
        return (header.height, header.width) if header.turned else (header.width, header.height)
    height, width = _decode_file(file, name).shape[:2]
    return width, height


def _decode(data: np.ndarray, flags: int) -> np.ndarray | None:
    if data.size == 0 or data[:2].tobytes() == _RADIANCE:
        return None
    try:
        # OpenCV would cut the floats of a PFM, 0-1, to 0 and 1.
        image = None if data[:2].tobytes() in _PFM_STARTS else cv2.imdecode(data, flags)
        return _from_float(cv2.imdecode(data, cv2.IMREAD_UNCHANGED)) if image is None else image
    except cv2.error as error:  # larger than OpenCV's limit, or corrupt in an unexpected way
        if is_out_of_memory(error):
            raise MemoryError(one_line(error)) from error
        return None


def _from_float(image: np.ndarray | None) -> np.ndarray | None:
    if image is None or not np.issubdtype(image.dtype, np.floating):
        return None
    image = image[..., None] if image.ndim == 2 else image[..., :3]
    levels = np.empty((*image.shape[:2], 3), np.uint8)
    for row, out in zip(image, levels, strict=True):  # row by row, as floats take four times the memory
        out[:] = np.nan_to_num(row).clip(0, 1) * 255
    return levels


def _is_truncated_jpeg(data: np.ndarray) -> bool:
    return data[:2].tobytes() == _JPEG_START and data[-2:].tobytes() != _JPEG_END


def _both_ends(file: BinaryIO) -> tuple[bytes, bytes]:
    """Return the first 8 bytes and the last 8192: cameras append data after the end marker."""
    file.seek(0)
    head = file.read(8)
    size = file.seek(0, 2)
    file.seek(max(size - 8192, 0))
    return head, file.read()
