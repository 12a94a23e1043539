"""Make figures without pyplot, whose global state does not allow drawing in several threads; feature maps."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.base.log import LOG
from utils.plots.annotator import write_image

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MAX_CHANNELS = 32
COLUMNS = 8
_TILE = 128  # longer side of a tile, in pixels
_GAP = 4  # pixels between tiles


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` x `height` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure, without warnings for letters that matplotlib's font lacks (they become boxes)."""
    canvas: Any = figure.canvas
    figure.set_dpi(dpi)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())
    write_image(path, cv2.cvtColor(pixels, cv2.COLOR_RGBA2BGR))  # several times as fast as Pillow


def disable_mathtext(texts: Iterable[Any]) -> None:
    """Disable mathtext in these texts, so that `$` in a class name does not start a formula."""
    for text in texts:
        text.set_parse_math(False)


def plot_features(
    maps: Any, layer_type: str, index: int, folder: Path, limit: int = MAX_CHANNELS
) -> Path | None:
    """Write the first channels of the first image as a grid (.png) and as an array (.npy).

    Args:
        maps: (B, C, h, w) tensor or array, the output of the layer.
        layer_type: name of the layer's class, with or without its module.
        index: index of the layer in the model.
        folder: folder for `stageINDEX_TYPE_features.png` and `.npy`.
        limit: maximum number of channels.

    Returns:
        Path of the image; None, and no files, for outputs without feature maps (the head, 1 x 1 maps).
    """
    if not hasattr(maps, "shape") or len(maps.shape) != 4 or max(maps.shape[2:]) <= 1:
        return None
    values = maps[0, :limit]
    array = np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values, np.float32)
    path = folder / f"stage{index}_{layer_type.rsplit('.', 1)[-1]}_features.png"
    write_image(path, _grid([_tile(channel) for channel in array]))
    np.save(path.with_suffix(".npy"), array)
    LOG.info(f"Saving {path}... ({len(array)}/{maps.shape[1]})")
    return path


def _tile(channel: np.ndarray) -> np.ndarray:
    """Draw one channel in grey, its range scaled to 0-255."""
    low, high = float(np.nanmin(channel)), float(np.nanmax(channel))
    grey = np.nan_to_num((channel - low) / max(high - low, 1e-12) * 255).round().astype(np.uint8)
    gain = _TILE / max(channel.shape)
    height, width = (max(round(side * gain), 1) for side in channel.shape)
    interpolation = cv2.INTER_AREA if gain < 1 else cv2.INTER_NEAREST
    return cv2.resize(grey, (width, height), interpolation=interpolation)


def _grid(tiles: list[np.ndarray]) -> np.ndarray:
    height, width = tiles[0].shape
    columns = min(COLUMNS, len(tiles))
    rows = math.ceil(len(tiles) / columns)
    sheet = np.full((rows * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP), 255, np.uint8)
    for index, tile in enumerate(tiles):
        y = _GAP + index // columns * (height + _GAP)
        x = _GAP + index % columns * (width + _GAP)
        sheet[y : y + height, x : x + width] = tile
    return sheet
