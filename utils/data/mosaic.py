"""Put four pictures around a common corner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from utils.data.letterbox import GRAY
from utils.data.sample import Sample, join_polygons
from utils.ops.boxes import clip_boxes

TILES = 4


@dataclass(frozen=True)
class MosaicDraws:
    """What chance decides about a mosaic: where its tiles meet, and which pictures they are."""

    centre_yx: tuple[int, int]
    indices: tuple[int, ...]  # of the pictures, as they stand: top left, top right, bottom left, bottom right

    @classmethod
    def draw(
        cls,
        rng: np.random.Generator,
        index: int,
        count: int,
        imgsz: int,
        partners: Sequence[int] = (),
    ) -> MosaicDraws:
        """Draw a mosaic with picture `index` in it and three others of `count`.

        Args:
            rng: source of chance.
            index: the picture that has to be in.
            count: pictures there are.
            imgsz: half of the mosaic's side.
            partners: the three others, where the caller has chosen them.
        """
        y, x = (int(v) for v in rng.uniform(imgsz / 2, imgsz * 3 / 2, 2))
        drawn = rng.integers(count, size=TILES - 1).tolist()
        order = rng.permutation([index, *(partners or drawn)])
        return cls((y, x), tuple(order.tolist()))


def mosaic4(tiles: Sequence[Sample], centre_yx: tuple[int, int], imgsz: int) -> Sample:
    """Lay four pictures on a gray canvas of twice `imgsz`, each touching the centre with a corner.

    What reaches beyond the canvas is cut off; boxes and outlines are clipped to it.
    """
    side = 2 * imgsz
    canvas = np.empty((side, side, 3), np.uint8)
    moves, counts, outlines = [], [], []
    for place, tile in enumerate(tiles):
        x, y = _paste(canvas, tile.image, centre_yx, below=place >= 2, right=place % 2 == 1)
        moves.append((x, y, x, y))
        counts.append(len(tile.boxes))
        outlines.append([(points + (x, y)).clip(0, side) for points in tile.polygons])
    joined = np.concatenate([tile.boxes for tile in tiles])
    corners = joined[:, 1:]
    corners += np.array(moves, np.float32).repeat(counts, 0)
    clip_boxes(corners, (side, side))
    return Sample(canvas, joined, join_polygons(list(zip(counts, outlines, strict=True))))


def _paste(
    canvas: np.ndarray, image: np.ndarray, centre_yx: tuple[int, int], below: bool, right: bool
) -> tuple[int, int]:
    """Fill a quarter of the canvas with an image, and with gray where it does not reach.

    Returns:
        (x, y) of the image's top left corner, which may lie outside.
    """
    height, width = image.shape[:2]
    y, x = centre_yx
    quarter = canvas[slice(y, None) if below else slice(y), slice(x, None) if right else slice(x)]
    space_y, space_x = quarter.shape[0] - height, quarter.shape[1] - width
    if space_y > 0:
        (quarter[height:] if below else quarter[:space_y])[:] = GRAY[0]
        quarter = quarter[:height] if below else quarter[space_y:]
    if space_x > 0:
        (quarter[:, width:] if right else quarter[:, :space_x])[:] = GRAY[0]
        quarter = quarter[:, :width] if right else quarter[:, space_x:]
    height_left, width_left = quarter.shape[:2]
    image = image[:height_left] if below else image[height - height_left :]
    quarter[:] = image[:, :width_left] if right else image[:, width - width_left :]
    return x if right else x - width, y if below else y - height
