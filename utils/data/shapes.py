"""A dataset that needs no download: drawn shapes in YOLO layout, the same for the same seed."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from utils.base.errors import DataError
from utils.base.log import LOG
from utils.base.seeds import generator
from utils.tasks.segment.polygons import join_rings, polygon_text, ring_fractions

NAMES = ("circle", "square", "triangle", "star", "ring")
VERSION = 1  # raise it when the images change: datasets of older versions are then drawn again
MARKER = "shapes.json"

_EMPTY_FRACTION = 0.04  # images without objects, as in real datasets
_MIN_VISIBLE = 0.55  # fraction of a shape that other shapes may not cover
_MIN_INSIDE = 0.75  # fraction of a shape that is inside the image
_SUBPIXEL_BITS = 4  # fractional bits of the coordinates for cv2.fillPoly


def make_shapes(
    root: Path, seed: int = 0, train: int = 320, val: int = 80, size: int = 320, *, polygons: bool = False
) -> Path:
    """Draw the dataset into `root` unless it exists already; return `root`.

    Writes images/{train,val}/NNNN.jpg, labels/{train,val}/NNNN.txt and a marker file with the version,
    atomically. A dataset of an older version is replaced.

    Args:
        root: folder of the dataset.
        seed: equal seeds give equal images.
        train: number of training images.
        val: number of validation images.
        size: side of the images, pixels.
        polygons: label the visible part of each shape with a polygon, instead of the whole with a box.

    Raises:
        DataError: `root` contains other files, or cannot be written.
    """
    info = {"version": VERSION, "seed": seed, "train": train, "val": val, "size": size}
    if polygons:
        info["polygons"] = True

    def draw(fresh: Path) -> None:
        _draw_split(fresh, "train", seed, range(train), size, polygons)
        _draw_split(fresh, "val", seed, range(train, train + val), size, polygons)

    return make_dataset(root, info, draw)


def make_class_shapes(root: Path, seed: int = 0, train: int = 64, val: int = 16, size: int = 96) -> Path:
    """Draw images of one shape into class folders, {train,val}/<shape>/NNNN.jpg, unless they exist already.

    Args:
        root: folder of the dataset.
        seed: equal seeds give equal images.
        train: number of training images of each class.
        val: number of validation images of each class.
        size: side of the images, pixels.

    Raises:
        DataError: `root` contains other files, or cannot be written.
    """
    info = {"version": VERSION, "seed": seed, "train": train, "val": val, "size": size, "classes": True}
    return make_dataset(
        root, info, lambda fresh: _draw_classes(fresh, seed, {"train": train, "val": val}, size)
    )


def make_dataset(root: Path, info: dict[str, Any], draw: Callable[[Path], None]) -> Path:
    """Make a dataset atomically with `draw`, unless `root` is the one that `info` describes; return `root`.

    Raises:
        DataError: `root` contains other files, or cannot be written.
    """
    if _is_current(root, info):
        return root
    LOG.info(f"Drawing {info['train']} + {info['val']} images into {root}")
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
            fresh = Path(folder) / "new"
            draw(fresh)
            (fresh / MARKER).write_text(json.dumps(info) + "\n")
            _move_to(fresh, root, info, Path(folder) / "old")
    except OSError as error:
        raise DataError(
            f"{root}: the shapes cannot be drawn there ({error.strerror or error}); "
            "give another --data, or change path: in its yaml"
        ) from error
    return root


def draw_image(
    rng: np.random.Generator, height: int, width: int, objects: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one image of shapes on a textured, noisy background.

    A box bounds the whole shape inside the image, including the part that later shapes cover; at least
    half of each shape is visible.

    Args:
        rng: random generator.
        height: image height, pixels.
        width: image width, pixels.
        objects: number of shapes; by default 2 to 5, and 0 in a few images.

    Returns:
        image (height, width, 3) uint8 BGR and labels (n, 5) float32: class, cx, cy, w, h as fractions.
        n is less than `objects` if there is no room for more shapes.
    """
    return draw_objects(rng, height, width, objects)[:2]


def draw_objects(
    rng: np.random.Generator, height: int, width: int, objects: int | None = None
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Draw the image of `draw_image`; return it, its labels (n, 5), and the masks of what is visible.

    A mask (height, width) bool is the part of a shape that no later shape covers.
    """
    if objects is None:
        objects = 0 if rng.random() < _EMPTY_FRACTION else int(rng.integers(2, 6))
    canvas, ground = _background(rng, height, width)
    colours = [ground]
    visible: list[tuple[np.ndarray, int]] = []  # visible mask and full area of each shape
    rows = []
    for _ in range(objects):
        choice = _choose_shape(rng, height, width, visible)
        if choice is None:
            break
        class_index, mask = choice
        visible = [(shown & ~mask, area) for shown, area in visible] + [(mask, int(mask.sum()))]
        colours.append(_distinct_colour(rng, colours))
        _paint(rng, canvas, mask, colours[-1])
        rows.append((class_index, *_fractions(mask)))
    canvas += rng.standard_normal((height, width, 1), np.float32) * rng.uniform(2, 9)
    image = np.clip(canvas, 0, 255).astype(np.uint8)
    return image, np.array(rows, np.float32).reshape(-1, 5), [shown for shown, _ in visible]


def save_jpeg(path: Path, image: np.ndarray, quality: int = 90) -> None:
    """Write a BGR image as JPEG; unlike cv2.imwrite it accepts any path on Windows."""
    path.write_bytes(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes())


@cache
def _contours(name: str) -> tuple[np.ndarray, ...]:
    """Return the closed polygons of a shape, each (points, 2), in the unit circle around the origin."""
    if name == "ring":
        return _corners(np.ones(72)), _corners(np.full(72, 0.55))
    corners = {"circle": 72, "square": 4, "triangle": 3, "star": 10}[name]
    radii = np.ones(corners)
    if name == "star":
        radii[1::2] = 0.45
    return (_corners(radii),)


def _corners(radii: np.ndarray) -> np.ndarray:
    angles = np.arange(len(radii)) * (2 * np.pi / len(radii))
    return np.stack([np.cos(angles), np.sin(angles)], axis=1) * radii[:, None]


def _choose_shape(
    rng: np.random.Generator, height: int, width: int, visible: list[tuple[np.ndarray, int]]
) -> tuple[int, np.ndarray] | None:
    """Choose a class and a position that leave enough of every shape visible.

    Returns:
        The class and the mask (height, width) bool; None if 30 positions were tried in vain.
    """
    class_index = int(rng.integers(len(NAMES)))
    # Mostly large, so that a small network learns them within minutes.
    low, high = (0.28, 0.48) if rng.random() < 0.75 else (0.17, 0.28)
    for _ in range(30):
        radius = rng.uniform(low, high) * min(height, width) / 2
        mask, area = _random_mask(rng, NAMES[class_index], height, width, radius)
        inside = int(mask.sum())
        covers_none = all((shown & ~mask).sum() >= _MIN_VISIBLE * whole for shown, whole in visible)
        if inside >= _MIN_INSIDE * area and covers_none:
            return class_index, mask
    return None


def _random_mask(
    rng: np.random.Generator, name: str, height: int, width: int, radius: float
) -> tuple[np.ndarray, float]:
    """Place a shape at random; return its mask (height, width) bool, and its area before clipping."""
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    stretch = np.array([1.0, rng.uniform(0.85, 1.0)]) * radius
    centre = rng.uniform(0.05, 0.95, 2) * (width, height)
    contours = [((points * stretch) @ turn + centre).astype(np.float32) for points in _contours(name)]
    mask = np.zeros((height, width), np.uint8)
    fixed = [np.rint(points * 2**_SUBPIXEL_BITS).astype(np.int32) for points in contours]
    cv2.fillPoly(mask, fixed, 1, shift=_SUBPIXEL_BITS)  # an inner polygon becomes a hole
    area = abs(cv2.contourArea(contours[0])) - sum(abs(cv2.contourArea(hole)) for hole in contours[1:])
    return mask.astype(bool), area


def _fractions(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Return centre and size of the bounding box of `mask`, as fractions of its width and height."""
    height, width = mask.shape
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    return (x + w / 2) / width, (y + h / 2) / height, w / width, h / height


def _background(rng: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw a textured background (height, width, 3) float32; return it and its mean colour (3,)."""
    bright = rng.uniform(30, 100) if rng.random() < 0.5 else rng.uniform(150, 220)
    ground = np.clip(bright + rng.uniform(-30, 30, 3), 0, 255).astype(np.float32)
    canvas = np.empty((height, width, 3), np.float32)
    canvas[:] = ground
    for cell, strength in ((48, rng.uniform(4, 20)), (8, rng.uniform(2, 12))):
        coarse = rng.standard_normal((height // cell + 2, width // cell + 2, 3), np.float32)
        canvas += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR) * strength
    if rng.random() < 0.5:
        rows, columns = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
        down, across = rng.uniform(-0.5, 0.5, 2).astype(np.float32)
        canvas += np.sin(rows * down + columns * across)[..., None] * rng.uniform(4, 14)
    for _ in range(rng.integers(0, 8)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * (width, height)
        tone = ground + rng.uniform(-55, 55)
        first, last = ends.astype(int).tolist()
        cv2.line(canvas, first, last, tone.tolist(), int(rng.integers(1, 4)), cv2.LINE_AA)
    return canvas, ground


def _distinct_colour(rng: np.random.Generator, used: list[np.ndarray]) -> np.ndarray:
    """Return the one of ten random colours that is farthest from those in use (first: the background)."""
    colours = rng.uniform(15, 245, (10, 3)).astype(np.float32)
    distance = np.linalg.norm(colours[:, None] - np.stack(used), axis=2)
    distance[:, 1:] *= 1.5  # two shapes may look more alike than a shape and the ground
    return colours[distance.min(axis=1).argmax()]


def _paint(rng: np.random.Generator, canvas: np.ndarray, mask: np.ndarray, colour: np.ndarray) -> None:
    """Fill the mask with a colour gradient; edges are blended over one pixel."""
    x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
    region = slice(y, y + h), slice(x, x + w)
    angle, depth = rng.uniform(0, 2 * np.pi), rng.uniform(0, 25)
    down = np.linspace(-1, 1, h, dtype=np.float32)[:, None] * np.float32(np.sin(angle) * depth)
    across = np.linspace(-1, 1, w, dtype=np.float32)[None] * np.float32(np.cos(angle) * depth)
    alpha = cv2.blur(mask[region].astype(np.float32), (2, 2))[..., None]
    canvas[region] += alpha * (colour + (down + across)[..., None] - canvas[region])


def _draw_split(root: Path, split: str, seed: int, numbers: range, size: int, polygons: bool) -> None:
    images, labels = root / "images" / split, root / "labels" / split
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for number in numbers:
        image, rows, masks = draw_objects(generator(seed, number), size, size)
        save_jpeg(images / f"{number:04d}.jpg", image)
        lines = [
            f"{int(class_index)} {_polygon(mask) if polygons else ' '.join(f'{value:.6f}' for value in box)}"
            for (class_index, *box), mask in zip(rows, masks, strict=True)
        ]
        (labels / f"{number:04d}.txt").write_text("".join(f"{line}\n" for line in lines))


def _draw_classes(root: Path, seed: int, counts: dict[str, int], size: int) -> None:
    """Draw `counts[split]` images of each shape; an image with a shape that has enough of them is dropped."""
    number = 0
    for split, count in counts.items():
        left = dict.fromkeys(NAMES, count)
        for name in NAMES:
            (root / split / name).mkdir(parents=True)
        while any(left.values()):
            image, rows = draw_image(generator(seed, number), size, size, objects=1)
            name = NAMES[int(rows[0, 0])] if len(rows) else ""
            if left.get(name):
                left[name] -= 1
                save_jpeg(root / split / name / f"{number:04d}.jpg", image)
            number += 1


def _polygon(mask: np.ndarray) -> str:
    return polygon_text(ring_fractions(join_rings(mask), mask.shape))


def _is_current(root: Path, info: dict[str, Any]) -> bool:
    """Return whether `root` is the dataset that `info` describes; raise DataError for other folders."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        return json.loads((root / MARKER).read_text()) == info
    except (OSError, ValueError) as error:
        raise DataError(
            f"{root}: contains other files (there is no readable {MARKER}); move it away first"
        ) from error


def _move_to(fresh: Path, root: Path, info: dict[str, Any], old: Path) -> None:
    """Rename `fresh` to `root`, unless another process has drawn the same dataset meanwhile."""
    if root.exists() and any(root.iterdir()):
        if _is_current(root, info):
            return
        root.rename(old)
    try:
        fresh.rename(root)
    except OSError:
        if not _is_current(root, info):
            if old.exists():
                shutil.move(old, root)
            raise
