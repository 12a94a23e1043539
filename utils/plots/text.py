"""Text on OpenCV pictures, in any script.

OpenCV 5 brings fonts for most scripts. OpenCV 4 knows ASCII only and draws question marks for the rest,
so there the other characters go through Pillow and a font that is already on the disk.
"""

from __future__ import annotations

import importlib.util
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

Color = tuple[int, int, int]

_OPENCV_DRAWS_UNICODE = hasattr(cv2, "FontFace")
_FACE = cv2.FONT_HERSHEY_SIMPLEX
_PIXELS_AT_SCALE_1 = 28  # size of a Pillow font that matches OpenCV's letters


@lru_cache(maxsize=4096)  # the same few names with two digits, again and again
def text_size(text: str, scale: float, thickness: int = 1) -> tuple[int, int]:
    """Width and height in pixels of `text`; what hangs below the base line is not counted."""
    if _by_opencv(text):
        (width, height), _ = cv2.getTextSize(text, _FACE, scale, thickness)
        return int(width), int(height)
    left, _, right, _ = _font(scale).getbbox(text, anchor="ls")
    return int(right - min(left, 0)), round(0.75 * _PIXELS_AT_SCALE_1 * scale)


def draw_text(
    image: np.ndarray, text: str, origin: tuple[int, int], scale: float, color: Color, thickness: int = 1
) -> None:
    """Draw `text` into `image` with the left end of its base line at `origin` (x, y)."""
    if _by_opencv(text):
        cv2.putText(image, text, origin, _FACE, scale, color, thickness, cv2.LINE_AA)
        return
    from PIL import Image, ImageDraw

    mask = Image.new("L", (image.shape[1], image.shape[0]))
    ImageDraw.Draw(mask).text(origin, text, fill=255, font=_font(scale), anchor="ls")
    box = mask.getbbox()
    if box is None:
        return
    x1, y1, x2, y2 = box
    opacity = np.asarray(mask.crop(box), np.float32)[..., None] / 255
    patch = image[y1:y2, x1:x2]
    patch[:] = np.rint(patch * (1 - opacity) + np.array(color, np.float32) * opacity).astype(image.dtype)


def _by_opencv(text: str) -> bool:
    return _OPENCV_DRAWS_UNICODE or text.isascii()


@lru_cache(maxsize=8)
def _font(scale: float) -> Any:
    """DejaVu Sans if matplotlib is installed (Greek, Cyrillic, ...), else Pillow's own font."""
    from PIL import ImageFont

    size = max(6, round(_PIXELS_AT_SCALE_1 * scale))
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations))) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)
