"""Drawn images in which the class of an object depends on something far away: a test of context.

Grey squares, all alike; the class of each is the colour of a dot in its row, `distance` pixels to the left.
A model that does not see both can only guess, which is mAP50 of about 0.5 for two classes. With distance 0
the dot is inside its square: the negative control, in which near texture suffices.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from utils.base.seeds import generator
from utils.data.shapes import make_dataset, save_jpeg

NAMES = ("red", "blue")
VERSION = 1  # raise it when the images change: datasets of older versions are then drawn again
SIZE = 224  # pixels
DISTANCE = 160  # pixels
FARTHEST = SIZE - 40
COLOURS = ((60, 60, 220), (220, 60, 60))  # BGR of the dots, by class

_SQUARE = 12  # side, pixels
_DOT = 3  # radius, pixels
_MARGIN = 10  # from the centre of a square or dot to the border, pixels
_ROWS_APART = (24, 40)  # pixels


def make_context(
    root: Path, distance: int = DISTANCE, seed: int = 0, train: int = 320, val: int = 160
) -> Path:
    """Draw the dataset into `root` unless it exists already; return `root`.

    Args:
        root: folder of the dataset.
        distance: from the dot to the centre of its square, pixels, 0 to `FARTHEST`.
        seed: equal seeds give equal images.
        train: number of training images.
        val: number of validation images.

    Raises:
        DataError: `root` contains other files, or cannot be written.
    """
    info = {
        "context": VERSION, "distance": distance, "seed": seed, "train": train, "val": val, "size": SIZE,
    }  # fmt: skip

    def draw(fresh: Path) -> None:
        for split, numbers in (("train", range(train)), ("val", range(train, train + val))):
            images, labels = fresh / "images" / split, fresh / "labels" / split
            images.mkdir(parents=True)
            labels.mkdir(parents=True)
            for number in numbers:
                image, rows = draw_context(generator(seed, number), distance)
                save_jpeg(images / f"{number:04d}.jpg", image, quality=95)
                lines = (f"{int(row[0])} {' '.join(f'{value:.6f}' for value in row[1:])}\n" for row in rows)
                (labels / f"{number:04d}.txt").write_text("".join(lines))

    return make_dataset(root, info, draw)


def draw_context(
    rng: np.random.Generator, distance: int, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image: a square and its dot in each row.

    Positions, grey levels and noise are drawn before the classes and do not depend on them: nothing but the
    dots distinguishes the classes.

    Args:
        rng: random generator.
        distance: from the dot to the centre of its square, pixels.
        classes: of the rows from top to bottom, in place of random ones; at least as many as rows.

    Returns:
        image (SIZE, SIZE, 3) uint8 BGR and labels (n, 5) float32: class, cx, cy, w, h as fractions.
    """
    first = int(rng.integers(_MARGIN, _MARGIN + _ROWS_APART[1]))
    steps = rng.integers(*_ROWS_APART, endpoint=True, size=SIZE // _ROWS_APART[0])
    heights = [y for y in first + np.concatenate(([0], np.cumsum(steps))) if y < SIZE - _MARGIN]
    centres = rng.integers(max(distance, 0) + _MARGIN, SIZE - _MARGIN, size=len(heights))
    greys = rng.integers(110, 150, size=len(heights))
    noise = rng.normal(200, 8, (SIZE, SIZE, 1))
    drawn = rng.integers(0, len(NAMES), size=len(heights))
    kinds = drawn if classes is None else classes[: len(heights)]
    canvas = np.repeat(noise, 3, axis=2).clip(0, 255).astype(np.uint8)
    half = _SQUARE // 2
    for x, y, grey in zip(centres.tolist(), heights, greys.tolist(), strict=True):
        cv2.rectangle(canvas, (x - half, int(y) - half), (x + half - 1, int(y) + half - 1), (grey,) * 3, -1)
    for x, y, kind in zip(centres.tolist(), heights, kinds, strict=True):
        cv2.circle(canvas, (x - distance, int(y)), _DOT, COLOURS[int(kind)], -1)
    side = _SQUARE / SIZE
    rows = [
        (kind, x / SIZE, y / SIZE, side, side) for kind, x, y in zip(kinds, centres, heights, strict=True)
    ]
    return canvas, np.array(rows, np.float32)
