"""Boxes with labels on a picture, crops out of it, and the palette they share."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from utils.plots.picture import write_picture
from utils.plots.text import Color, draw_text, text_size

PALETTE_RGB = (
    *("042AFF", "0BDBEB", "F3F3F3", "00DFB7", "111F68", "FF6FDD", "FF444F", "CCED00", "00F344", "BD00FF"),
    *("00B4FF", "DD00BA", "00FFFF", "26C000", "01FFB3", "7D24FF", "7B0068", "FF1B6C", "FC6D2F", "A2FF0B"),
)


@lru_cache(maxsize=256)
def colors(index: int, bgr: bool = False) -> Color:
    """The colour of class `index`; there are twenty, then they repeat."""
    text = PALETTE_RGB[int(index) % len(PALETTE_RGB)]
    red, green, blue = (int(text[i : i + 2], 16) for i in (0, 2, 4))
    return (blue, green, red) if bgr else (red, green, blue)


def colors_on_white(index: int) -> Color:
    """`colors` in RGB, the light ones darkened until they show on white paper."""
    color = colors(index)
    gain = min(1.0, 170 / max(_luma(color), 1))
    return (int(color[0] * gain), int(color[1] * gain), int(color[2] * gain))


def default_line_width(image: np.ndarray) -> int:
    """Lines that look alike on pictures of any size."""
    return max(round(sum(image.shape) / 2 * 0.003), 2)


class Annotator:
    """Draw labelled boxes into `image` itself ((H, W, 3) uint8 BGR, contiguous rows)."""

    def __init__(self, image: np.ndarray, line_width: int | None = None) -> None:
        self.image = image
        self.line_width = default_line_width(image) if line_width is None else max(int(line_width), 1)
        # A third of the line width suits photographs; on thumbnails such text would hide the picture.
        self.text_scale = max(0.3, min(self.line_width / 3, min(image.shape[:2]) / 640))
        self.text_thickness = max(round(2 * self.text_scale), 1)

    def box_label(self, xyxy: Sequence[float], label: str = "", color: Color = (128, 128, 128)) -> None:
        """Draw one box (pixels), and its label on a tab above it, or inside where there is no room."""
        x1, y1, x2, y2 = (round(float(value)) for value in xyxy[:4])
        cv2.rectangle(self.image, (x1, y1), (x2, y2), color, self.line_width)
        if label:
            self._tab(x1, y1, label, color)

    def _tab(self, x: int, y: int, label: str, color: Color) -> None:
        width, height = text_size(label, self.text_scale, self.text_thickness)
        margin = max(round(8 * self.text_scale), 2)
        tab_width, tab_height = width + 2 * margin, height + 2 * margin
        left = max(min(x, self.image.shape[1] - tab_width), 0)
        top = y - tab_height if y >= tab_height else max(y, 0)
        # What `cv2.rectangle` fills, without the wait for Python's lock after each call into OpenCV.
        self.image[max(top, 0) : max(top + tab_height + 1, 0), left : left + tab_width + 1] = color
        origin = (left + margin, top + margin + height)
        draw_text(self.image, label, origin, self.text_scale, readable_on(color), self.text_thickness)

    def result(self) -> np.ndarray:
        """The picture with everything drawn so far."""
        return self.image


def readable_on(bgr: Color) -> Color:
    """Black or white, whichever contrasts more with a background."""
    return (0, 0, 0) if _luma(bgr[::-1]) > 140 else (255, 255, 255)


def _luma(rgb: Color) -> float:
    """How bright a colour looks, 0-255 (weights of ITU-R BT.601)."""
    red, green, blue = rgb
    return 0.299 * red + 0.587 * green + 0.114 * blue


def crop_box(xyxy: Sequence[float], image: np.ndarray, gain: float = 1.02, margin: int = 10) -> np.ndarray:
    """Cut a box out of `image`, `gain` times as large plus `margin` pixels, as far as the picture goes."""
    x1, y1, x2, y2 = (float(value) for value in xyxy[:4])
    half_width = ((x2 - x1) * gain + margin) / 2
    half_height = ((y2 - y1) * gain + margin) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    height, width = image.shape[:2]
    columns = slice(max(int(x - half_width), 0), min(int(x + half_width), width))
    rows = slice(max(int(y - half_height), 0), min(int(y + half_height), height))
    return image[rows, columns]


def save_crop(xyxy: Sequence[float], image: np.ndarray, file: Path) -> np.ndarray:
    """Write the surroundings of a box to `file` (JPEG 95, colours at full resolution) and return them."""
    crop = crop_box(xyxy, image)
    if crop.size:
        write_picture(file, crop, full_chroma=True)
    return crop
