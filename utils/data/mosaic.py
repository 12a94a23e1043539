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
    canvas = np.full((side, side, 3), GRAY[0], np.uint8)
    boxes, outlines = [], []
    for place, tile in enumerate(tiles):
        x, y = _paste(canvas, tile.image, centre_yx, below=place >= 2, right=place % 2 == 1)
        boxes.append(tile.boxes + np.array((0, x, y, x, y), np.float32))
        outlines.append((len(tile.boxes), [(points + (x, y)).clip(0, side) for points in tile.polygons]))
    joined = np.concatenate(boxes)
    clip_boxes(joined[:, 1:], (side, side))
    return Sample(canvas, joined, join_polygons(outlines))


def _paste(
    canvas: np.ndarray, image: np.ndarray, centre_yx: tuple[int, int], below: bool, right: bool
) -> tuple[int, int]:
    """Copy an image onto the canvas; return (x, y) of its top left corner, which may lie outside."""
    height, width = image.shape[:2]
    top = centre_yx[0] if below else centre_yx[0] - height
    left = centre_yx[1] if right else centre_yx[1] - width
    cut_y, cut_x = max(-top, 0), max(-left, 0)
    target = canvas[max(top, 0) : top + height, max(left, 0) : left + width]
    target[:] = image[cut_y : cut_y + target.shape[0], cut_x : cut_x + target.shape[1]]
    return left, top
