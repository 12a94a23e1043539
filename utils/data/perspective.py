"""Perspective augmentation: rotate, scale, shear, translate and tilt an image with its boxes and polygons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.data.letterbox import GRAY
from utils.data.samples import Sample
from utils.ops.boxes import clip_boxes

MIN_SIDE = 2  # pixels; smaller boxes are dropped
MAX_ASPECT = 100
RESAMPLED = 1000  # points of a polygon whose mask is needed after the warp
# Fraction of a box's area that has to stay visible; what is left of a polygon is known much more exactly.
MIN_AREA_BOX, MIN_AREA_POLYGON = 0.10, 0.01
_MIN_DETERMINANT = 1e-6  # below it the image has shrunk to a point, and the warp cannot be inverted


@dataclass(frozen=True)
class PerspectiveDraws:
    """The random choices of a warp; the defaults leave the image as it is."""

    perspective_x: float = 0.0  # per pixel
    perspective_y: float = 0.0
    angle_deg: float = 0.0  # counter-clockwise
    scale: float = 1.0
    shear_x_deg: float = 0.0
    shear_y_deg: float = 0.0
    translate_x_frac: float = 0.5  # of the output, where the centre of the input goes
    translate_y_frac: float = 0.5

    @classmethod
    def draw(cls, rng: np.random.Generator, hyp: Mapping[str, float]) -> PerspectiveDraws:
        """Draw uniformly within the ranges of the hyperparameters."""
        spread = [hyp[key] for key in ("perspective", "degrees", "scale", "shear", "translate")]
        perspective, degrees, scale, shear, translate = spread
        offsets = rng.uniform(-1, 1, 8) * (
            perspective, perspective, degrees, scale, shear, shear, translate, translate,
        )  # fmt: skip
        p_x, p_y, angle, gain, shear_x, shear_y, x, y = offsets.tolist()
        return cls(p_x, p_y, angle, 1 + gain, shear_x, shear_y, 0.5 + x, 0.5 + y)


def random_perspective(
    sample: Sample, draws: PerspectiveDraws, border: tuple[int, int] = (0, 0), keep_polygons: bool = False
) -> Sample:
    """Warp an image, and keep the objects of which enough stays visible.

    Args:
        sample: the image with boxes in pixels.
        draws: the warp.
        border: rows and columns to add on each side; negative values crop a mosaic to its centre.
        keep_polygons: warp the polygons, which every box must have, at `RESAMPLED` points each.

    Returns:
        The warped image with its boxes, and with `keep_polygons` its polygons, which are not clipped.
    """
    height, width = sample.image.shape[:2]
    out_hw = height + 2 * border[0], width + 2 * border[1]
    matrix = warp_matrix(draws, (height, width), out_hw)
    image = sample.image
    if border != (0, 0) or not np.array_equal(matrix, np.eye(3)):
        size = out_hw[1], out_hw[0]
        if draws.perspective_x or draws.perspective_y:
            image = cv2.warpPerspective(image, matrix, size, borderValue=GRAY)
        else:
            image = cv2.warpAffine(image, matrix[:2], size, borderValue=GRAY)
    if keep_polygons:
        return Sample(image, *warp_polygons(sample, matrix, draws.scale, out_hw))
    return Sample(image, _warp_boxes(sample, matrix, draws.scale, out_hw))


def warp_matrix(draws: PerspectiveDraws, in_hw: Sequence[int], out_hw: Sequence[int]) -> np.ndarray:
    """Return the matrix (3, 3) that maps a point (x, y, 1) of the input to the output.

    The steps, from right to left: centre, tilt, rotate and scale, shear, translate.
    """
    centre, tilt, shear, move = np.eye(3), np.eye(3), np.eye(3), np.eye(3)
    centre[:2, 2] = -in_hw[1] / 2, -in_hw[0] / 2
    tilt[2, :2] = draws.perspective_x, draws.perspective_y
    angle = math.radians(draws.angle_deg)
    a, b = draws.scale * math.cos(angle), draws.scale * math.sin(angle)
    turn = np.array([[a, b, 0], [-b, a, 0], [0, 0, 1]])
    shear[0, 1] = math.tan(math.radians(draws.shear_x_deg))
    shear[1, 0] = math.tan(math.radians(draws.shear_y_deg))
    move[:2, 2] = draws.translate_x_frac * out_hw[1], draws.translate_y_frac * out_hw[0]
    return move @ shear @ turn @ tilt @ centre


def visible_region(
    draws: PerspectiveDraws, in_hw: tuple[int, int], out_hw: Sequence[int]
) -> tuple[slice, slice]:
    """Return the rows and columns of the input that are visible in the output; all if it is tilted."""
    height, width = in_hw
    (a, b, x), (c, d, y) = warp_matrix(draws, in_hw, out_hw)[:2].tolist()
    determinant = a * d - b * c
    if draws.perspective_x or draws.perspective_y or abs(determinant) < _MIN_DETERMINANT:
        return slice(0, height), slice(0, width)
    ends = [(u - x, v - y) for u in (0, out_hw[1]) for v in (0, out_hw[0])]
    columns = [(d * u - b * v) / determinant for u, v in ends]
    rows = [(a * v - c * u) / determinant for u, v in ends]
    return _range_of(rows, height), _range_of(columns, width)


def _range_of(positions: Sequence[float], limit: int) -> slice:
    """Return the pixels from the least to the greatest position, and the neighbours for interpolation."""
    first, last = math.floor(min(positions)) - 2, math.ceil(max(positions)) + 3
    return slice(min(max(first, 0), limit), min(max(last, 0), limit))


def box_candidates(
    before_xyxy: np.ndarray,
    after_xyxy: np.ndarray,
    min_side: float = MIN_SIDE,
    max_aspect: float = MAX_ASPECT,
    min_area: float | np.ndarray = MIN_AREA_BOX,
    eps: float = 1e-16,
) -> np.ndarray:
    """Select the boxes that are large enough after a warp: (n,) bool.

    Args:
        before_xyxy: (n, 4) boxes before the warp, times its scale.
        after_xyxy: (n, 4) the same boxes after the warp, clipped.
        min_side: width and height have to be larger, pixels.
        max_aspect: the longer side divided by the shorter has to be smaller.
        min_area: fraction of the area that has to be left; one number, or one per box.
        eps: avoids divisions by zero.
    """
    w0, h0 = (before_xyxy[:, 2:4] - before_xyxy[:, :2]).T
    w, h = (after_xyxy[:, 2:4] - after_xyxy[:, :2]).T
    aspect = np.maximum(w / (h + eps), h / (w + eps))
    large = (w > min_side) & (h > min_side)
    return large & (w * h / (w0 * h0 + eps) > min_area) & (aspect < max_aspect)


def _warp_boxes(sample: Sample, matrix: np.ndarray, scale: float, out_hw: tuple[int, int]) -> np.ndarray:
    boxes = sample.boxes
    if not len(boxes):
        return boxes
    corners = boxes[:, [1, 2, 3, 4, 1, 4, 3, 2]].reshape(-1, 2)
    points = _warp_points(corners, matrix).reshape(-1, 4, 2)
    warped = clip_boxes(np.concatenate((points.min(1), points.max(1)), 1), out_hw)
    min_area = np.full(len(boxes), MIN_AREA_BOX)
    for row, polygon in enumerate(sample.polygons):
        if len(polygon) and polygon.any():
            warped[row] = bounds_inside(_warp_points(polygon, matrix), out_hw)
            min_area[row] = MIN_AREA_POLYGON
    keep = box_candidates(boxes[:, 1:] * scale, warped, min_area=min_area)
    return np.concatenate((boxes[keep, :1], warped[keep]), 1, dtype=boxes.dtype, casting="same_kind")


def warp_polygons(
    sample: Sample, matrix: np.ndarray, scale: float, out_hw: tuple[int, int]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Warp polygons at `RESAMPLED` points each, and their boxes, which bound the points inside the image.

    Returns:
        The boxes (n, 5) of which enough stays visible, and a polygon (RESAMPLED, 2) for each of them.
    """
    boxes = sample.boxes
    if not len(boxes):
        return boxes, []
    points = np.concatenate([resample(polygon) for polygon in sample.polygons])
    warped = _warp_points(points, matrix).reshape(len(boxes), RESAMPLED, 2)
    inside = np.asarray(((warped >= 0) & (warped <= (out_hw[1], out_hw[0]))).all(2, keepdims=True))
    least = np.where(inside, warped, np.inf).min(1)
    greatest = np.where(inside, warped, -np.inf).max(1)
    bounds = np.where(inside.any(1), np.concatenate((least, greatest), 1), 0)
    keep = box_candidates(boxes[:, 1:] * scale, bounds, min_area=MIN_AREA_POLYGON)
    kept = np.concatenate((boxes[keep, :1], bounds[keep]), 1, dtype=boxes.dtype, casting="same_kind")
    return kept, list(warped[keep])


def resample(points: np.ndarray, count: int = RESAMPLED) -> np.ndarray:
    """Close a polygon (k, 2), and interpolate it at `count` equal steps of the point index: (count, 2)."""
    closed = np.concatenate((points, points[:1]))
    positions, index = np.linspace(0, len(closed) - 1, count), np.arange(len(closed))
    return np.stack([np.interp(positions, index, closed[:, axis]) for axis in range(2)], 1)


def _warp_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Map points (n, 2) by the matrix."""
    moved = points @ matrix[:, :2].T + matrix[:, 2]
    if matrix[2, 0] == 0 and matrix[2, 1] == 0:
        return moved[:, :2]
    return moved[:, :2] / moved[:, 2:]


def bounds_inside(points: np.ndarray, shape_hw: Sequence[float]) -> np.ndarray:
    """Return the bounds of the part of a polygon (n, 2) inside an image: xyxy (4,), zeros if it is empty."""
    limit = np.array((shape_hw[1], shape_hw[0]), float)
    if (points >= 0).all() and (points <= limit).all():
        return np.concatenate((points.min(0), points.max(0)))
    ends = np.roll(points, -1, axis=0)
    inside = np.concatenate((_clip_edges(points, ends - points, limit), _covered_corners(points, limit)))
    return np.concatenate((inside.min(0), inside.max(0))) if len(inside) else np.zeros(4)


def _clip_edges(starts: np.ndarray, steps: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Clip each edge `start + t * step`, t in 0-1, to the image (Liang and Barsky); return the ends."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossings = np.stack((-starts / steps, (limit - starts) / steps))  # where an edge meets the borders
    parallel = steps == 0
    between = (starts >= 0) & (starts <= limit)
    enter = np.where(parallel, np.where(between, -np.inf, np.inf), crossings.min(0)).max(1).clip(min=0)
    leave = np.where(parallel, np.where(between, np.inf, -np.inf), crossings.max(0)).min(1).clip(max=1)
    meets = enter <= leave
    starts, steps, enter, leave = starts[meets], steps[meets], enter[meets, None], leave[meets, None]
    return np.concatenate((starts + enter * steps, starts + leave * steps)).clip(0, limit)


def _covered_corners(points: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """Return the corners of the image that lie inside the polygon, (k, 2)."""
    polygon = points.astype(np.float32)
    width, height = limit.tolist()
    corners = [(0.0, 0.0), (width, 0.0), (width, height), (0.0, height)]
    covered = [corner for corner in corners if cv2.pointPolygonTest(polygon, corner, False) > 0]
    return np.array(covered, float).reshape(-1, 2)
