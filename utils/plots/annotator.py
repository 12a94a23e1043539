"""Draw boxes, labels and text on images, crop boxes out of them, and write images."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.paths import write_bytes

Color = tuple[int, int, int]

JPEG_SUFFIXES = (".jpg", ".jpeg")
WRITABLE_SUFFIXES = (*JPEG_SUFFIXES, ".png", ".bmp", ".tif", ".tiff", ".webp")
PALETTE_RGB = (
    *("042AFF", "0BDBEB", "F3F3F3", "00DFB7", "111F68", "FF6FDD", "FF444F", "CCED00", "00F344", "BD00FF"),
    *("00B4FF", "DD00BA", "00FFFF", "26C000", "01FFB3", "7D24FF", "7B0068", "FF1B6C", "FC6D2F", "A2FF0B"),
)
_OPENCV_DRAWS_UNICODE = hasattr(cv2, "FontFace")
_FACE = cv2.FONT_HERSHEY_SIMPLEX
_PIXELS_AT_SCALE_1 = 28  # size of a Pillow font that matches OpenCV's letters


class Annotator:
    """Annotator of an image ((H, W, 3) uint8 BGR, contiguous rows), which is drawn on in place.

    Args:
        image: to draw on.
        line_width: in pixels; None or 0: by the size of the image, as in YOLOv5.
    """

    def __init__(self, image: np.ndarray, line_width: int | None = None) -> None:
        self.image = image
        self.line_width = max(int(line_width), 1) if line_width else default_line_width(image)
        # A third of the line width suits photographs; on thumbnails such text would hide the image.
        self.text_scale = max(0.3, min(self.line_width / 3, min(image.shape[:2]) / 640))
        self.text_thickness = max(round(2 * self.text_scale), 1)

    def box_label(self, xyxy: Sequence[float], label: str = "", color: Color = (128, 128, 128)) -> None:
        """Draw a box (in pixels), with its label above it, or inside where there is no room above."""
        x1, y1, x2, y2 = (round(float(value)) for value in xyxy[:4])
        cv2.rectangle(self.image, (x1, y1), (x2, y2), color, self.line_width)
        if label:
            self._label(x1, y1, label, color)

    def _label(self, x: int, y: int, label: str, color: Color) -> None:
        """Draw a label on a filled rectangle."""
        width, height = text_size(label, self.text_scale, self.text_thickness)
        margin = max(round(8 * self.text_scale), 2)
        outer_width, outer_height = width + 2 * margin, height + 2 * margin
        left = max(min(x, self.image.shape[1] - outer_width), 0)
        top = y - outer_height if y >= outer_height else max(y, 0)
        # The same as `cv2.rectangle`, which would wait for the GIL after the call.
        self.image[max(top, 0) : max(top + outer_height + 1, 0), left : left + outer_width + 1] = color
        origin = (left + margin, top + margin + height)
        draw_text(self.image, label, origin, self.text_scale, readable_on(color), self.text_thickness)

    def result(self) -> np.ndarray:
        """Return the image with everything drawn so far."""
        return self.image


def blend_masks(image: np.ndarray, masks: np.ndarray, bgr: Sequence[Color], alpha: float = 0.5) -> None:
    """Blend masks (n, H, W) into an image (H, W, 3) in place: each pixel is covered by all of its masks.

    `out = image * (1 - alpha) ** count + max of alpha * colour`, as YOLOv5 draws them.
    """
    if not len(masks):
        return
    covered = np.asarray(masks.any(0))
    rows, columns = covered.any(1).nonzero()[0], covered.any(0).nonzero()[0]
    if not len(rows):
        return
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    inside = masks[:, part[0], part[1]].astype(bool)
    count = inside.sum(0)
    tint = np.zeros((*count.shape, 3), np.float32)
    for color in set(bgr):  # a pass for each colour, of which there are twenty
        where = inside[[one == color for one in bgr]].any(0)
        tint[where] = np.maximum(tint[where], np.array(color, np.float32) * alpha)
    kept = (1 - alpha) ** count.astype(np.float32)
    image[part] = np.where((count > 0)[..., None], image[part] * kept[..., None] + tint, image[part])


def default_line_width(image: np.ndarray) -> int:
    """Return a line width that looks alike on images of any size."""
    return max(round(sum(image.shape) / 2 * 0.003), 2)


@lru_cache(maxsize=256)
def colors(index: int, bgr: bool = False) -> Color:
    """Return the colour of class `index`; there are twenty, which repeat."""
    text = PALETTE_RGB[int(index) % len(PALETTE_RGB)]
    red, green, blue = (int(text[i : i + 2], 16) for i in (0, 2, 4))
    return (blue, green, red) if bgr else (red, green, blue)


def colors_on_white(index: int) -> Color:
    """Return `colors` in RGB, with light colours darkened until they are visible on white."""
    color = colors(index)
    gain = min(1.0, 170 / max(_luma(color), 1))
    return (int(color[0] * gain), int(color[1] * gain), int(color[2] * gain))


def readable_on(bgr: Color) -> Color:
    """Return black or white, whichever has more contrast to a background."""
    return (0, 0, 0) if _luma(bgr[::-1]) > 140 else (255, 255, 255)


def _luma(rgb: Color) -> float:
    """Return the brightness of a colour, 0-255 (weights of ITU-R BT.601)."""
    red, green, blue = rgb
    return 0.299 * red + 0.587 * green + 0.114 * blue


@lru_cache(maxsize=4096)  # labels repeat: few class names, with two digits of confidence
def text_size(text: str, scale: float, thickness: int = 1) -> tuple[int, int]:
    """Return the width and height of `text` in pixels, without what is below the baseline."""
    if _by_opencv(text):
        (width, height), _ = cv2.getTextSize(text, _FACE, scale, thickness)
        return int(width), int(height)
    left, _, right, _ = _font(scale).getbbox(text, anchor="ls")
    return int(right - min(left, 0)), round(0.75 * _PIXELS_AT_SCALE_1 * scale)


def draw_text(
    image: np.ndarray, text: str, origin: tuple[int, int], scale: float, color: Color, thickness: int = 1
) -> None:
    """Draw `text` on `image`, with the left end of its baseline at `origin` (x, y)."""
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
    """Return DejaVu Sans if matplotlib is installed (Greek, Cyrillic, ...), else Pillow's own font."""
    from PIL import ImageFont

    size = max(6, round(_PIXELS_AT_SCALE_1 * scale))
    spec = importlib.util.find_spec("matplotlib")
    if spec is not None and spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations))) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if path.is_file():
            return ImageFont.truetype(str(path), size)
    return ImageFont.load_default(size)


def crop_box(xyxy: Sequence[float], image: np.ndarray, gain: float = 1.02, margin: int = 10) -> np.ndarray:
    """Crop a box from `image`, `gain` times as large plus `margin` pixels, clipped to the image."""
    x1, y1, x2, y2 = (float(value) for value in xyxy[:4])
    half_width = ((x2 - x1) * gain + margin) / 2
    half_height = ((y2 - y1) * gain + margin) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    height, width = image.shape[:2]
    columns = slice(max(int(x - half_width), 0), max(min(int(x + half_width), width), 0))
    rows = slice(max(int(y - half_height), 0), max(min(int(y + half_height), height), 0))
    return image[rows, columns]


def save_crop(xyxy: Sequence[float], image: np.ndarray, file: Path) -> np.ndarray:
    """Write the crop of a box to `file` (JPEG 95, full chroma resolution) and return it."""
    crop = crop_box(xyxy, image)
    if crop.size:
        write_image(file, crop, full_chroma=True)
    return crop


def write_image(path: Path, image: np.ndarray, quality: int = 95, full_chroma: bool = False) -> None:
    """Write `image` ((H, W, 3) or (H, W) uint8, BGR) in the format of the suffix.

    Args:
        path: file to write; its folder is created if necessary.
        image: pixels.
        quality: JPEG quality.
        full_chroma: JPEG without chroma subsampling, for crops to train on.

    Raises:
        DataError: the suffix is not among `WRITABLE_SUFFIXES`, or the image is empty.
    """
    suffix = path.suffix.lower()
    if suffix not in WRITABLE_SUFFIXES or image.size == 0:
        raise DataError(f"{path}: cannot write an image of shape {image.shape} as {suffix or 'a file'}")
    settings: list[int] = []
    if suffix in JPEG_SUFFIXES:
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
        if full_chroma:
            settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    ok, encoded = cv2.imencode(suffix, image, settings)
    if not ok:
        raise DataError(f"{path}: OpenCV could not encode an image of shape {image.shape}")
    write_bytes(path, encoded.tobytes())
