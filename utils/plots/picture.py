"""Write pictures: any path (unicode, spaces), no half files on a failed encoding."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.base.errors import DataError

JPEG_SUFFIXES = (".jpg", ".jpeg")
WRITABLE_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".bmp", ".tif", ".tiff", ".webp")


def write_picture(path: Path, image: np.ndarray, quality: int = 95, full_chroma: bool = False) -> None:
    """Encode `image` ((H, W, 3) or (H, W) uint8, BGR) by the suffix of `path`, and write it.

    Args:
        path: where to; its folder is made if need be.
        image: the pixels.
        quality: of JPEG files.
        full_chroma: keep colours of JPEG files at full resolution (crops for training, not for looking).

    Raises:
        DataError: the suffix is none of `WRITABLE_SUFFIXES`, or the picture is empty.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES or image.size == 0:
        raise DataError(f"{path}: cannot write a picture of shape {image.shape} as {suffix or 'a file'}")
    settings: list[int] = []
    if suffix in JPEG_SUFFIXES:
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if full_chroma:
            settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, encoded = cv2.imencode(suffix, image, settings)
    if not ok:
        raise DataError(f"{path}: OpenCV could not encode a picture of shape {image.shape}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded.tobytes())
