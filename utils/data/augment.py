"""Augmentations besides perspective: mosaic, HSV, flips, mixup, copy-paste, Albumentations.

Random numbers are drawn by separate functions (`draw_...`), so that a test can repeat any case.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from utils.base.log import LOG
from utils.data.letterbox import GRAY
from utils.data.samples import Sample, join_polygons
from utils.ops.boxes import clip_boxes

TILES = 4
View = tuple[slice, slice]  # rows and columns of the canvas
MIXUP_BETA = 32.0  # both parameters of the beta distribution: ratios are mostly near one half
MAX_COVERED = 0.30  # fraction of an object that a pasted one may cover
EXTRA_PROBABILITY = 0.01  # of each Albumentations transform
_EXTRA_TRANSFORMS = ("Blur", "MedianBlur", "ToGray", "CLAHE")


@dataclass(frozen=True)
class MosaicDraws:
    """The random choices of a mosaic: where its tiles meet, and which images they are."""

    centre_yx: tuple[int, int]
    indices: tuple[int, ...]  # of the images: top left, top right, bottom left, bottom right

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        index: int,
        count: int,
        imgsz: int,
        partners: Sequence[int] = (),
    ) -> MosaicDraws:
        """Draw a mosaic of image `index` and three others of `count`.

        Args:
            rng: random generator.
            index: an image that is part of the mosaic.
            count: number of images in the dataset.
            imgsz: half of the mosaic's side.
            partners: the three others, if the caller has chosen them.
        """
        y, x = (int(v) for v in rng.uniform(imgsz / 2, imgsz * 3 / 2, 2))
        drawn = rng.integers(count, size=TILES - 1).tolist()
        order = rng.permutation([index, *(partners or drawn)])
        return cls((y, x), tuple(order.tolist()))


def mosaic4(
    tiles: Sequence[Sample], centre_yx: tuple[int, int], imgsz: int, visible: View | None = None
) -> Sample:
    """Paste four images on a gray canvas of side 2 * imgsz, each with a corner at the centre.

    Images, boxes and polygons are clipped to the canvas.

    Args:
        tiles: top left, top right, bottom left, bottom right.
        centre_yx: where they meet.
        imgsz: half of the canvas's side.
        visible: the part of the canvas that is needed; pixels elsewhere are undefined. None is all of it.
    """
    side = 2 * imgsz
    rows, columns = visible or (slice(0, side), slice(0, side))
    canvas = np.empty((side, side, 3), np.uint8)
    (y, x), moves, polygons = centre_yx, [], []
    for number, tile in enumerate(tiles):
        height, width = tile.image.shape[:2]
        top, above = (y, slice(y, side)) if number >= 2 else (y - height, slice(0, y))
        left, beside = (x, slice(x, side)) if number % 2 else (x - width, slice(0, x))
        _paste(canvas, tile.image, (top, left), (_intersect(rows, above), _intersect(columns, beside)))
        moves.append((left, top, left, top))
        if tile.polygons:
            polygons.append([(points + (left, top)).clip(0, side) for points in tile.polygons])
        else:
            polygons.append([])
    joined, counts = np.concatenate([tile.boxes for tile in tiles]), [len(tile.boxes) for tile in tiles]
    corners = joined[:, 1:]
    corners += np.array(moves, np.float32).repeat(counts, 0)
    clip_boxes(corners, (side, side))
    return Sample(canvas, joined, join_polygons(list(zip(counts, polygons, strict=True))))


def _intersect(one: slice, other: slice) -> slice:
    """Return the intersection of two ranges; an empty one has the length 0, never a negative one."""
    start = max(one.start, other.start)
    return slice(start, max(min(one.stop, other.stop), start))


def _paste(canvas: np.ndarray, image: np.ndarray, corner_yx: tuple[int, int], part: View) -> None:
    """Fill a part of the canvas: with an image whose top left corner is given, and gray around it."""
    (top, left), (rows, columns) = corner_yx, part
    inner_y = _intersect(rows, slice(top, top + image.shape[0]))
    inner_x = _intersect(columns, slice(left, left + image.shape[1]))
    for gray_y, gray_x in (
        (slice(rows.start, inner_y.start), columns),
        (slice(inner_y.stop, rows.stop), columns),
        (inner_y, slice(columns.start, inner_x.start)),
        (inner_y, slice(inner_x.stop, columns.stop)),
    ):
        if gray_y.start < gray_y.stop and gray_x.start < gray_x.stop:
            canvas[gray_y, gray_x] = GRAY[0]
    source_y = slice(inner_y.start - top, inner_y.stop - top)
    canvas[inner_y, inner_x] = image[source_y, inner_x.start - left : inner_x.stop - left]


def draw_hsv_gains(rng: np.random.Generator, hyp: Mapping[str, float]) -> np.ndarray:
    """Draw gains (3,) for hue, saturation and value around 1."""
    return 1 + rng.uniform(-1, 1, 3) * (hyp["hsv_h"], hyp["hsv_s"], hyp["hsv_v"])


def adjust_hsv(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiply hue (it wraps around), saturation and value of a BGR image by gains (3,)."""
    if (gains == 1).all():
        return image
    levels = np.arange(256)[:, None] * gains
    levels[:, 0] %= 180  # OpenCV counts hue in steps of two degrees
    table = levels.clip(0, 255).astype(np.uint8)[None]
    hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)


def draw_flips(rng: np.random.Generator, hyp: Mapping[str, float]) -> tuple[bool, bool]:
    """Draw whether to flip an image upside down, and whether left to right."""
    up_down, left_right = (rng.random(2) < (hyp["flipud"], hyp["fliplr"])).tolist()
    return up_down, left_right


def flip(image: np.ndarray, labels: np.ndarray, up_down: bool, left_right: bool) -> np.ndarray:
    """Flip an image and, in place, the centres of its labels (n, 5), class and xywhn."""
    if up_down:
        image = cv2.flip(image, 0)
        labels[:, 2] = 1 - labels[:, 2]
    if left_right:
        image = cv2.flip(image, 1)
        labels[:, 1] = 1 - labels[:, 1]
    return image


def mixup(one: Sample, other: Sample, ratio: float) -> Sample:
    """Blend two images of one size, `ratio` of the first; the objects of both are kept."""
    blend = (one.image * ratio + other.image * (1 - ratio)).astype(np.uint8)
    polygons = join_polygons([(len(sample.boxes), sample.polygons) for sample in (one, other)])
    return Sample(blend, np.concatenate((one.boxes, other.boxes)), polygons)


def draw_pastes(rng: np.random.Generator, count: int, fraction: float) -> list[int]:
    """Draw which fraction of `count` objects to paste, and in which order."""
    return rng.permutation(count)[: round(fraction * count)].tolist()


def copy_paste(sample: Sample, chosen: Sequence[int]) -> Sample:
    """Paste copies of objects, mirrored left to right in the image, where they cover little of others.

    Args:
        sample: the sample, changed in place; only objects with a polygon can be pasted.
        chosen: indices of the objects, in the order of pasting.

    Returns:
        The sample, with the new boxes and polygons after the old ones.
    """
    width = sample.image.shape[1]
    boxes = list(sample.boxes)
    pasted: list[np.ndarray] = []
    mask = np.zeros(sample.image.shape[:2], np.uint8)
    for index in chosen:
        polygon = sample.polygons[index]
        cls, x1, y1, x2, y2 = sample.boxes[index]
        box = np.array((cls, width - x2, y1, width - x1, y2), sample.boxes.dtype)
        if len(polygon) and (_covered(box[1:], np.stack(boxes)[:, 1:]) < MAX_COVERED).all():
            boxes.append(box)
            pasted.append(np.stack((width - polygon[:, 0], polygon[:, 1]), 1))
            cv2.drawContours(mask, [polygon.astype(np.int32)], -1, 1, cv2.FILLED)
    if not pasted:
        return sample
    where = cv2.flip(mask, 1).view(bool)
    sample.image[where] = cv2.flip(sample.image, 1)[where]
    polygons = join_polygons([(len(sample.boxes), sample.polygons), (len(pasted), pasted)])
    return Sample(sample.image, np.stack(boxes), polygons)


def _covered(box: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Compute the fraction of each of `others` (n, 4) xyxy that `box` (4,) covers: (n,)."""
    first, last = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    intersection = (last - first).clip(0).prod(1)
    return intersection / ((others[:, 2:] - others[:, :2]).prod(1) + 1e-16)


class ExtraTransforms:
    """Optional Albumentations transforms of colour and sharpness, each applied with a small probability.

    The probabilities are drawn here: a seeded `Compose` of Albumentations applies either all or none.
    """

    def __init__(self, transforms: Sequence[Any], probability: float = EXTRA_PROBABILITY) -> None:
        self.transforms = transforms  # each with p=1
        self.probability = probability

    def __call__(self, rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
        chosen = rng.random(len(self.transforms)) < self.probability
        seeds = rng.integers(2**31, size=len(self.transforms)).tolist()
        for transform, is_chosen, seed in zip(self.transforms, chosen, seeds, strict=True):
            if is_chosen:
                with _seeded(transform, seed):
                    image = transform(image=image)["image"]
        return image


def load_extra_transforms(prefix: str = "") -> ExtraTransforms | None:
    """Make the transforms; return None if Albumentations is not installed or too old."""
    try:
        import albumentations as album
    except ImportError:
        return None
    try:
        transforms = [getattr(album, name)(p=1.0) for name in _EXTRA_TRANSFORMS]
    except (AttributeError, TypeError, ValueError) as error:
        LOG.warning(f"{prefix}albumentations {getattr(album, '__version__', '')} is not used: {error}")
        return None
    names = (f"{name}(p={EXTRA_PROBABILITY})" for name in _EXTRA_TRANSFORMS)
    LOG.info(f"{prefix}albumentations: {', '.join(names)}")
    return ExtraTransforms(transforms)


@contextmanager
def _seeded(transform: Any, seed: int) -> Iterator[None]:
    """Seed a transform; old versions use the global generators, whose states are restored afterwards."""
    if hasattr(transform, "set_random_seed"):
        transform.set_random_seed(seed)
        yield
        return
    python, numpy = random.getstate(), np.random.get_state()
    random.seed(seed)
    np.random.seed(seed)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
