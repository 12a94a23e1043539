"""Time each augmentation against the bare OpenCV calls in it.

    python benchmarks/augmentation.py
    python benchmarks/augmentation.py --sizes 320 640 1280 --boxes 30

The bare side does not draw random numbers, build tables or move boxes. Both sides must give the same pixels,
except "as shown": there the package composes only the part of a mosaic that its warp will show. OpenCV uses
one thread, as in a data loader worker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from timing import ROOT, ResultTable, alternate, parser, slower

from utils.base.yaml_io import read_yaml
from utils.data.augment import adjust_hsv, draw_hsv_gains, mosaic4
from utils.data.letterbox import GRAY, letterbox
from utils.data.perspective import PerspectiveDraws, random_perspective, visible_region, warp_matrix
from utils.data.samples import Sample

TARGET = "<= 1.25"
DRAWS = 16  # warps of a mosaic
Work = Callable[[], Any]


def main() -> None:
    """Run the benchmark."""
    p = parser(__doc__)
    p.add_argument("--sizes", type=int, nargs="+", default=[320, 640], help="image sizes (pixels)")
    p.add_argument("--boxes", type=int, default=12, help="number of boxes per image; BCCD has 12")
    opt = p.parse_args()
    cv2.setNumThreads(0)
    table = ResultTable("Augmentations against bare OpenCV", opt.csv)
    for size in opt.sizes:
        for what, (ours, bare) in pairs(size, opt.boxes).items():
            assert "as shown" in what or np.array_equal(ours(), bare()), f"{what}: pixels differ"
            seconds = alternate({"package": ours, "OpenCV": bare}, opt.rounds, least=0.05)
            table.add(slower(f"{what} at {size}, {opt.boxes} boxes", TARGET, seconds, "package", "OpenCV"))


def pairs(size: int, boxes: int) -> dict[str, tuple[Work, Work]]:
    """Return the package's function and the bare one for each augmentation."""
    rng = np.random.default_rng(0)
    hyp = read_yaml(ROOT / "data/hyps/hyp.scratch-low.yaml")
    tiles = [random_sample(rng, size * 3 // 4, size, boxes) for _ in range(4)]
    centre = int(size * 1.1), int(size * 0.9)
    border = -(size // 2), -(size // 2)
    mosaic = mosaic4(tiles, centre, size)
    affine = PerspectiveDraws.draw(rng, hyp)
    tilted = PerspectiveDraws.draw(rng, {**hyp, "perspective": 0.0005})
    gains = draw_hsv_gains(rng, hyp)
    square, photo = random_sample(rng, size, size, boxes).image, random_sample(rng, 960, 1280, boxes).image
    compose = bare_mosaic(tiles, centre, size)
    many = [PerspectiveDraws.draw(rng, hyp) for _ in range(DRAWS)]  # how much a warp shows is random
    whole, bare_many = (2 * size, 2 * size), [bare_warp(draws, size) for draws in many]
    views = [visible_region(draws, whole, (size, size)) for draws in many]
    warps = {draws: bare_warp(draws, size) for draws in (affine, tilted)}
    return {
        f"{DRAWS} mosaics laid and warped": (
            lambda: np.stack(
                [
                    random_perspective(mosaic4(tiles, centre, size, view), draws, border).image
                    for draws, view in zip(many, views, strict=True)
                ]
            ),
            lambda: np.stack([warp(compose()) for warp in bare_many]),
        ),
        "mosaic laid, all of it": (lambda: mosaic4(tiles, centre, size).image, compose),
        f"{DRAWS} mosaics laid as shown": (
            lambda: sum(mosaic4(tiles, centre, size, view).image.size for view in views),
            lambda: sum(compose().size for _ in many),
        ),
        "affine warp of a mosaic": (
            lambda: random_perspective(mosaic, affine, border).image,
            lambda: warps[affine](mosaic.image),
        ),
        "perspective warp of a mosaic": (
            lambda: random_perspective(mosaic, tilted, border).image,
            lambda: warps[tilted](mosaic.image),
        ),
        "HSV": (lambda: adjust_hsv(square, gains), bare_hsv(square, gains)),
        "letterbox of 1280 x 960": (
            lambda: letterbox(photo, size, auto=False)[0],
            bare_letterbox(photo, size),
        ),
    }


def random_sample(rng: np.random.Generator, height: int, width: int, boxes: int) -> Sample:
    """Make a sample of a blurred random image with boxes."""
    image = cv2.GaussianBlur(rng.integers(0, 256, (height, width, 3), dtype=np.uint8), (0, 0), 3)
    first, side = rng.uniform(0, 0.8, (boxes, 2)), rng.uniform(0.05, 0.2, (boxes, 2))
    corners = np.concatenate((first, first + side), 1) * (width, height, width, height)
    return Sample(image, np.concatenate((np.zeros((boxes, 1)), corners), 1).astype(np.float32))


def bare_mosaic(tiles: list[Sample], centre_yx: tuple[int, int], size: int) -> Work:
    """Return a function that copies four tiles to a gray canvas."""
    copies = []
    for number, tile in enumerate(tiles):
        height, width = tile.image.shape[:2]
        top = centre_yx[0] if number >= 2 else centre_yx[0] - height
        left = centre_yx[1] if number % 2 else centre_yx[1] - width
        first = np.maximum((top, left), 0)
        last = np.minimum((top + height, left + width), 2 * size)
        rows, columns = (slice(a, b) for a, b in zip(first, last, strict=True))
        source = tile.image[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
        copies.append((source, rows, columns))

    def work() -> np.ndarray:
        canvas = np.full((2 * size, 2 * size, 3), GRAY[0], np.uint8)
        for source, rows, columns in copies:
            cv2.copyTo(source, None, canvas[rows, columns])
        return canvas

    return work


def bare_warp(draws: PerspectiveDraws, size: int) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that warps an image with one call of OpenCV."""
    matrix, out = warp_matrix(draws, (2 * size, 2 * size), (size, size)), (size, size)
    if draws.perspective_x or draws.perspective_y:
        return lambda image: cv2.warpPerspective(image, matrix, out, borderValue=GRAY)
    return lambda image: cv2.warpAffine(image, matrix[:2], out, borderValue=GRAY)


def bare_hsv(image: np.ndarray, gains: np.ndarray) -> Work:
    """Return a function that converts to HSV, applies a lookup table, and converts back."""
    levels = np.arange(256)[:, None] * gains
    levels[:, 0] %= 180
    table = levels.clip(0, 255).astype(np.uint8)[None]

    def work() -> np.ndarray:
        hsv = cv2.LUT(cv2.cvtColor(image, cv2.COLOR_BGR2HSV), table)
        return cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)

    return work


def bare_letterbox(image: np.ndarray, size: int) -> Work:
    """Return a function that scales an image and pads it at the top and bottom."""
    height = size * image.shape[0] // image.shape[1]
    pad = (size - height) // 2

    def work() -> np.ndarray:
        small = cv2.resize(image, (size, height), interpolation=cv2.INTER_LINEAR)
        return cv2.copyMakeBorder(small, pad, pad, 0, 0, cv2.BORDER_CONSTANT, value=GRAY)

    return work


if __name__ == "__main__":
    main()
