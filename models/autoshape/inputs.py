"""Images in whatever shape people have them: files, addresses, PIL, arrays, tensors -> RGB bytes."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import torch
from torch import Tensor

from utils.base.download import download_bytes
from utils.base.errors import ConfigError, DataError
from utils.base.processes import usable_cores
from utils.data.images import decode_image, read_image

LARGEST = 2**28  # bytes of an image at an address
MOST_CHANNELS = 4  # an array whose first side is no longer has its channels there
_ORIENTATION = 0x0112  # Exif tag; 1 is upright


class NamedImage(NamedTuple):
    """One image: pixels (H, W, 3) uint8 RGB, and what to call it."""

    rgb: np.ndarray
    file: str


def load_images(items: Sequence[Any], private_addresses: bool = False) -> list[NamedImage]:
    """Read several images, files side by side.

    Args:
        items: file names, http(s) URLs, PIL images, arrays (H, W), (H, W, C) or (C, H, W) in RGB,
            tensors (C, H, W); of any number of kinds.
        private_addresses: download from this machine and its network, too.

    Raises:
        ConfigError: something else, or an address that is refused.
        DataError: a file that is missing or damaged, an array that is no image.
    """

    def read(numbered: tuple[int, Any]) -> NamedImage:
        return load_image(numbered[1], numbered[0], private_addresses)

    threads = min(usable_cores(), sum(isinstance(item, str | Path) for item in items))
    if threads < 2:
        return list(map(read, enumerate(items)))
    with ThreadPoolExecutor(threads, "reader") as pool:
        return list(pool.map(read, enumerate(items)))


def load_image(item: Any, index: int = 0, private_addresses: bool = False) -> NamedImage:
    """Read one image, the `index`-th of its list; see `load_images`."""
    name = f"image{index}"
    if isinstance(item, str) and urlsplit(item).scheme.lower() in ("http", "https"):
        content = download_bytes(item, limit=LARGEST, public=not private_addresses)
        bgr = decode_image(np.frombuffer(content, np.uint8), item)
        return NamedImage(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _jpg(unquote(urlsplit(item).path), name))
    if isinstance(item, str | Path):
        bgr = read_image(Path(item).expanduser())
        return NamedImage(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), _jpg(item, name))
    if isinstance(item, Tensor):
        return NamedImage(_rgb(_bytes_of_tensor(item), name), f"{name}.jpg")
    if isinstance(item, np.ndarray):
        return NamedImage(_rgb(_bytes(item, name), name), f"{name}.jpg")
    pil = sys.modules.get("PIL.Image")  # who has an image of PIL has imported it
    if pil is not None and isinstance(item, pil.Image):
        return NamedImage(
            _rgb(_bytes(_upright(item, name), name), name), _jpg(item.__dict__.get("filename"), name)
        )
    raise ConfigError(
        f"{name}: a {type(item).__name__} is no image; give file names, URLs, PIL images, "
        "numpy arrays, tensors, or a list of them"
    )


def _jpg(file: Any, otherwise: str) -> str:
    """The name under which an image is saved, as JPEG."""
    return f"{Path(str(file or '')).stem or otherwise}.jpg"


def _upright(image: Any, name: str) -> np.ndarray:
    """An image of PIL as an array, turned as its Exif data says."""
    from PIL import ImageOps

    try:
        if image.getexif().get(_ORIENTATION, 1) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode == "I":  # 32 bits, in which older versions of PIL keep images of 16
            levels = np.asarray(image).clip(0, 0xFFFF)
            return levels.astype(np.uint16 if levels.max(initial=0) > 0xFF else np.uint8)
        if image.mode in ("L", "RGB", "RGBA", "F") or image.mode.startswith("I;16"):
            return np.asarray(image)
        return np.asarray(image.convert("RGB"))
    except (OSError, ValueError) as error:
        raise DataError(f"{name}: PIL cannot read this image ({error})") from error


def _bytes_of_tensor(image: Tensor) -> np.ndarray:
    """A tensor's values as bytes: floats are 0-1, whole numbers 0-255."""
    image = image.detach()
    if image.is_floating_point():
        image = (image.float().clamp(0, 1) * 255).round()
    elif image.dtype == torch.bool:
        image = image * 255
    return image.to("cpu", torch.uint8).numpy()


def _bytes(image: np.ndarray, name: str) -> np.ndarray:
    """An array's values as bytes.

    16 bits are cut to the upper 8. Floats are 0-1 if none is greater than 1, else 0-255.
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
    raise DataError(f"{name}: an array of {image.dtype} whose values are not 0-255 is no image")


def _rgb(image: np.ndarray, name: str) -> np.ndarray:
    """(H, W), (H, W, C) or (C, H, W) -> (H, W, 3), contiguous: gray is repeated, transparency dropped."""
    if image.ndim == 3 and image.shape[0] <= MOST_CHANNELS < image.shape[2]:
        image = image.transpose(1, 2, 0)
    if image.ndim == 2:
        image = image[..., None]
    if image.ndim != 3 or image.size == 0:
        raise DataError(f"{name}: an image is (H, W, 3) or (3, H, W), not {tuple(image.shape)}")
    if image.shape[2] < 3:
        image = image[..., :1].repeat(3, 2)
    return np.ascontiguousarray(image[..., :3])
