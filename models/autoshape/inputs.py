"""Load images of any type (files, URLs, PIL images, arrays, tensors) as 8-bit RGB."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.base.download import download_bytes
from utils.base.errors import ConfigError, DataError
from utils.base.inputs import expand_user, split_url
from utils.base.processes import usable_cores
from utils.data.images import decode_image, read_image

MAX_DOWNLOAD = 2**28  # bytes of an image at a URL
MAX_CHANNELS = 4  # an array whose first dimension is at most this is (C, H, W)
_ORIENTATION = 0x0112  # Exif tag; 1 is upright


class NamedImage(NamedTuple):
    """An image (H, W, 3) uint8 RGB, and the file name to save it with."""

    rgb: np.ndarray
    file: str


def load_images(items: Sequence[Any], private_addresses: bool = False) -> list[NamedImage]:
    """Load several images, files in parallel.

    Args:
        items: paths, http(s) URLs, PIL images, arrays (H, W), (H, W, C) or (C, H, W) in RGB, and tensors
            (C, H, W), mixed.
        private_addresses: allow URLs of this machine and its private network.

    Raises:
        ConfigError: an object of another type, or a URL of a host that is not public.
        DataError: a file that is missing or corrupt, or an array that is not an image.
    """

    def read(numbered: tuple[int, Any]) -> NamedImage:
        return load_image(numbered[1], numbered[0], private_addresses)

    threads = min(usable_cores(), sum(isinstance(item, str | Path) for item in items))
    if threads < 2:
        return list(map(read, enumerate(items)))
    with ThreadPoolExecutor(threads, "reader") as pool:
        return list(pool.map(read, enumerate(items)))


def load_image(item: Any, index: int = 0, private_addresses: bool = False) -> NamedImage:
    """Load the image at position `index` of a list; see `load_images`."""
    name = f"image{index}"
    if isinstance(item, str) and item.lower().startswith(("http://", "https://")):
        content = download_bytes(item, limit=MAX_DOWNLOAD, public=not private_addresses)
        bgr = decode_image(np.frombuffer(content, np.uint8), item)
        return NamedImage(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _jpg(unquote(split_url(item).path), name))
    if isinstance(item, str | Path):
        bgr = read_image(expand_user(item))
        return NamedImage(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _jpg(item, name))
    if isinstance(item, Tensor):
        return NamedImage(_rgb(_uint8_of_tensor(item), name), f"{name}.jpg")
    if isinstance(item, np.ndarray):
        return NamedImage(_rgb(_uint8(item, name), name), f"{name}.jpg")
    pil = sys.modules.get("PIL.Image")  # imported, if the item is one of its images
    if pil is not None and isinstance(item, pil.Image):
        return NamedImage(
            _rgb(_uint8(_upright(item, name), name), name), _jpg(item.__dict__.get("filename"), name)
        )
    raise ConfigError(
        f"{name}: a {type(item).__name__} is not an image; expected paths, URLs, PIL images, "
        "numpy arrays, tensors, or a list of them"
    )


def _jpg(file: Any, otherwise: str) -> str:
    """Return the name to save an image with, as JPEG."""
    return f"{Path(str(file or '')).stem or otherwise}.jpg"


def _upright(image: Any, name: str) -> np.ndarray:
    """Return a PIL image as an array, turned as its Exif data says."""
    from PIL import ImageOps

    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "I":  # 32 bits, in which older versions of PIL hold 16-bit images
            levels = np.asarray(image).clip(0, 0xFFFF)
            return levels.astype(np.uint16 if levels.max(initial=0) > 0xFF else np.uint8)
        if image.mode in ("L", "RGB", "RGBA", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: PIL cannot read this image ({error})") from error


def _uint8_of_tensor(image: Tensor) -> np.ndarray:
    """Convert a tensor to uint8: floats are 0-1, integers 0-255."""
    image = image.detach()
    if image.is_floating_point():
        image = (image.float().clamp(0, 1) * 255).round()
    elif image.dtype == torch.bool:
        image = image * 255
    return image.to("cpu", torch.uint8).numpy()


def _uint8(image: np.ndarray, name: str) -> np.ndarray:
    """Convert an array to uint8.

    Of uint16 the upper 8 bits are kept. Floats are 0-1 if none is greater than 1, else 0-255.
    """
    if image.dtype == np.uint8 or image.size == 0:
        return image
    if image.dtype.kind == "f":
        levels = np.nan_to_num(image.astype(np.float32), posinf=255, neginf=0)
        return (levels * (255 if levels.max() <= 1 else 1)).clip(0, 255).round().astype(np.uint8)
    if image.dtype.kind == "b":
        return image.astype(np.uint8) * 255
    if image.dtype.kind == "u" and image.dtype.itemsize == 2:
        return (image >> 8).astype(np.uint8)
    if image.dtype.kind in "iu" and image.min() >= 0 and image.max() <= 255:
        return image.astype(np.uint8)
    raise DataError(f"{name}: expected values from 0 to 255 in an array of {image.dtype}")


def _rgb(image: np.ndarray, name: str) -> np.ndarray:
    """Convert (H, W), (H, W, C) or (C, H, W) to contiguous (H, W, 3): gray is repeated, alpha dropped."""
    if image.ndim == 3 and image.shape[0] <= MAX_CHANNELS < image.shape[2]:
        image = image.transpose(1, 2, 0)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.size == 0:
        raise DataError(f"{name}: expected an image (H, W, 3) or (3, H, W), not {tuple(image.shape)}")
    if image.shape[2] < 3:
        image = image[..., :1].repeat(3, 2)
    return np.ascontiguousarray(image[..., :3])
