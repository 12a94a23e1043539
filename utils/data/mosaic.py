"""Mosaic augmentation: four images around a common corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.letterbox import GRAY
from utils.data.samples import Sample, join_polygons
from utils.ops.boxes import clip_boxes

TILES = 4
View = tuple[slice, slice]  # rows and columns of the canvas


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
