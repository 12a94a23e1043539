"""Draw a batch as a mosaic, with its labels or detections, and the statistics of all labels of a dataset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from utils.base.names import class_names
from utils.plots.annotator import (
    Annotator,
    blend_masks,
    colors,
    colors_on_white,
    draw_text,
    text_size,
    write_image,
)
from utils.plots.figure import disable_mathtext, new_figure, save_figure

if TYPE_CHECKING:
    import torch

Names = Mapping[int, str] | Sequence[str] | None
SUBPLOTS = 16  # images of a mosaic
MAX_SIDE = 1920  # pixels of the mosaic
PLOT_CONF = 0.25  # confidence threshold of drawn detections
DPI = 200
DRAWN_BOXES = 1000
NAMED_CLASSES = 29  # the names of more classes would overlap


def output_to_target(detections: Sequence[torch.Tensor], max_det: int = 300) -> np.ndarray:
    """Convert detections to rows for `plot_images`.

    Args:
        detections: per image (n, 6): x1, y1, x2, y2 in pixels of the batch, confidence, class.
        max_det: maximum detections per image.

    Returns:
        (m, 7) float32: image index, class, cx, cy, w, h in pixels, confidence.
    """
    blocks = [np.zeros((0, 7), np.float32)]
    for index, rows in enumerate(detections):
        kept = _numpy(rows)[:max_det].astype(np.float32)
        x1, y1, x2, y2, confidence, cls = kept[:, :6].T
        image = np.full(len(kept), index, np.float32)
        blocks.append(
            np.stack([image, cls, (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, confidence], axis=1)
        )
    return np.concatenate(blocks)


def plot_images(
    images: Any,
    targets: Any,
    paths: Sequence[str] | None,
    fname: str | Path,
    names: Names = None,
    max_subplots: int = SUBPLOTS,
    masks: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Draw a batch as a mosaic of at most 1920 pixels per side, and write it.

    Args:
        images: (B, 3, H, W) RGB, uint8 0-255 or floating point 0-1; tensor or array. It is not modified.
        targets: (T, 6) targets with boxes as fractions of the image, or (n, 7) rows of `output_to_target`,
            of which those with a confidence above 0.25 are drawn.
        paths: file of each image, for the captions.
        fname: image to write.
        names: names of the classes; by default their numbers are drawn.
        max_subplots: maximum number of images.
        masks: per image (k, h, w) masks of its first k targets, of any size.

    Returns:
        The mosaic, (h, w, 3) uint8 BGR.
    """
    tiles = [_bgr(image) for image in images[:max_subplots]]
    rows = _numpy(targets) if len(targets) else np.zeros((0, 6), np.float32)
    by_index = class_names(names) if names else {}
    columns = math.ceil(math.sqrt(max(len(tiles), 1)))
    lines = math.ceil(len(tiles) / columns) or 1
    height, width = tiles[0].shape[:2] if tiles else (1, 1)
    shrink = min(MAX_SIDE / columns / max(height, width), 1.0)
    height, width = max(round(height * shrink), 1), max(round(width * shrink), 1)
    mosaic = np.full((lines * height, columns * width, 3), 255, np.uint8)
    for index, tile in enumerate(tiles):
        y, x = index // columns * height, index % columns * width
        canvas = mosaic[y : y + height, x : x + width]
        canvas[:] = cv2.resize(tile, (width, height), interpolation=cv2.INTER_AREA) if shrink < 1 else tile
        own = rows[rows[:, 0] == index]
        if len(masks):
            _draw_masks(canvas, masks[index], own)
        _draw_boxes(canvas, own, shrink, by_index)
        _caption(canvas, Path(paths[index]).name if paths else "")
    write_image(Path(fname), mosaic)
    return mosaic


def _numpy(values: Any) -> np.ndarray:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _bgr(image: Any) -> np.ndarray:
    """Convert (3, H, W) RGB to a new (H, W, 3) uint8 BGR array."""
    array = _numpy(image)
    if array.dtype != np.uint8:
        array = (np.clip(array.astype(np.float32), 0, 1) * 255).round().astype(np.uint8)
    return np.array(array[::-1].transpose(1, 2, 0), order="C")


def _draw_masks(tile: np.ndarray, masks: np.ndarray, rows: np.ndarray) -> None:
    """Blend the masks (k, h, w) of the first rows into an image, each in the colour of its class."""
    shown = [index for index in range(len(masks)) if rows.shape[1] == 6 or rows[index, 6] > PLOT_CONF]
    if not shown:
        return
    height, width = tile.shape[:2]
    scaled = np.stack(
        [
            cv2.resize(masks[index].astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
            for index in shown
        ]
    )
    blend_masks(tile, scaled, [colors(int(rows[index, 1]), bgr=True) for index in shown])


def _draw_boxes(tile: np.ndarray, rows: np.ndarray, shrink: float, names: Mapping[int, str]) -> None:
    height, width = tile.shape[:2]
    annotator = Annotator(tile, line_width=max(round(min(height, width) / 250), 1))
    predicted = rows.shape[1] == 7
    unit = np.array([shrink] * 4) if predicted else np.array([width, height, width, height])
    for row in rows[::-1] if predicted else rows:  # the most confident last, on top
        if predicted and row[6] <= PLOT_CONF:
            continue
        x, y, w, h = row[2:6] * unit
        cls = int(row[1])
        name = names.get(cls, str(cls))
        label = f"{name} {row[6]:.1f}" if predicted else name
        annotator.box_label((x - w / 2, y - h / 2, x + w / 2, y + h / 2), label, colors(cls, bgr=True))


def _caption(tile: np.ndarray, text: str) -> None:
    """Draw a frame around an image, and the name of its file at the top left."""
    height, width = tile.shape[:2]
    cv2.rectangle(tile, (0, 0), (width - 1, height - 1), (255, 255, 255), 2)
    if not text:
        return
    scale = max(0.35, min(height, width) / 1200)
    text_width, text_height = text_size(text[:40], scale)
    cv2.rectangle(tile, (0, 0), (text_width + 8, text_height + 8), (40, 40, 40), cv2.FILLED)
    draw_text(tile, text[:40], (4, text_height + 4), scale, (255, 255, 255))


if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_labels(
    labels: np.ndarray, names: Mapping[int, str] | Sequence[str], save_dir: Path
) -> tuple[Path, Path] | None:
    """Write labels.jpg and labels_correlogram.jpg.

    Args:
        labels: (n, 5) class, cx, cy, w, h as fractions of the image, of the whole dataset.
        names: names of the classes.
        save_dir: folder for the two images.

    Returns:
        The two files, or None if there are no labels.
    """
    if not len(labels):
        return None
    classes, xywh = labels[:, 0].astype(int), labels[:, 1:5].astype(float)
    overview, correlogram = save_dir / "labels.jpg", save_dir / "labels_correlogram.jpg"
    _plot_overview(classes, xywh, [name for _, name in sorted(class_names(names).items())], overview)
    _plot_correlogram(xywh, correlogram)
    return overview, correlogram


def _plot_overview(classes: np.ndarray, xywh: np.ndarray, names: list[str], path: Path) -> None:
    figure = new_figure(8, 8)
    (histogram, boxes), (positions, sizes) = figure.subplots(2, 2)
    counts = np.bincount(classes, minlength=len(names))
    shades = [tuple(channel / 255 for channel in colors_on_white(i)) for i in range(len(counts))]
    histogram.bar(range(len(counts)), counts, color=shades)
    histogram.set_ylabel("instances")
    if 0 < len(names) <= NAMED_CLASSES:
        histogram.set_xticks(range(len(names)), names, rotation=90, fontsize=10)
        disable_mathtext(histogram.get_xticklabels())
    else:
        histogram.set_xlabel("classes")
    boxes.imshow(_centred_boxes(classes[:DRAWN_BOXES], xywh[:DRAWN_BOXES, 2:]))
    boxes.axis("off")
    _histogram_2d(positions, xywh[:, 0], xywh[:, 1], bins=50)
    positions.set(xlabel="x", ylabel="y")
    _histogram_2d(sizes, xywh[:, 2], xywh[:, 3], bins=50)
    sizes.set(xlabel="width", ylabel="height")
    for axes in (histogram, positions, sizes):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path, DPI)


def _centred_boxes(classes: np.ndarray, wh: np.ndarray, side: int = 1000) -> np.ndarray:
    """Draw boxes around a common centre, small ones on top, as (side, side, 3) RGB."""
    canvas = np.full((side, side, 3), 255, np.uint8)
    centre = side // 2
    for index in np.argsort(-wh.prod(1)):
        dx, dy = (round(float(fraction) * centre) for fraction in wh[index])
        corners = (centre - dx, centre - dy), (centre + dx, centre + dy)
        cv2.rectangle(canvas, *corners, colors_on_white(int(classes[index])), 1)
    return canvas


def _plot_correlogram(xywh: np.ndarray, path: Path) -> None:
    """Plot x, y, width and height against each other, with their distributions on the diagonal."""
    words = ("x", "y", "width", "height")
    figure = new_figure(9, 9)
    grid = figure.subplots(4, 4)
    for row in range(4):
        for column in range(4):
            axes = grid[row, column]
            if column > row:
                axes.axis("off")
            elif column == row:
                axes.hist(np.clip(xywh[:, row], 0, 1), bins=50, range=(0, 1), color="tab:blue")
                axes.set(xlim=(0, 1), yticks=[])
                axes.spines[["top", "right", "left"]].set_visible(False)
            else:
                _histogram_2d(axes, xywh[:, column], xywh[:, row], bins=50)
            axes.set_xlabel(words[column] if row == 3 else "")
            axes.set_ylabel(words[row] if column == 0 and row else "")
            axes.tick_params(labelbottom=row == 3, labelleft=column == 0 and row > 0)
    save_figure(figure, path, DPI)


def _histogram_2d(axes: Axes, x: np.ndarray, y: np.ndarray, bins: int) -> None:
    """Plot the density of points in the unit square; empty cells are white."""
    counts, _, _ = np.histogram2d(np.clip(x, 0, 1), np.clip(y, 0, 1), bins=bins, range=((0, 1), (0, 1)))
    # The square root keeps a few crowded cells from making all others pale.
    shown = np.where(counts > 0, np.sqrt(counts), np.nan).T
    axes.imshow(shown, origin="lower", extent=(0, 1, 0, 1), cmap="Blues", vmin=-0.3 * np.sqrt(counts.max()))
    axes.set(xlim=(0, 1), ylim=(0, 1))
