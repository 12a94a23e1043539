"""Masks as polygons and as COCO's run-length text, and back; several rings as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

_MOST_POINTS = 2000  # about as many points are tried as ends of bridges
_DIGITS = 6  # of the fractions in label files
_WITHIN = 0.98  # of a pixel: from its left or top edge to the farthest point that is truncated to it


def mask_contours(mask: np.ndarray) -> list[np.ndarray]:
    """Return the outer contours of a mask (h, w), each (k, 2) int32 pixels x, y; largest area first."""
    found = cv2.findContours(
        np.ascontiguousarray(mask, np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE
    )[0]
    contours = [points.reshape(-1, 2) for points in found]
    return sorted(contours, key=lambda points: (cv2.contourArea(points), len(points)), reverse=True)


def mask_polygon(mask: np.ndarray) -> np.ndarray:
    """Return the contour of the largest part of a mask (h, w): (k, 2) float32, k = 0 for an empty mask.

    Holes and further parts are not in it: a polygon of YOLO is one ring.
    """
    contours = mask_contours(mask)
    return contours[0].astype(np.float32) if contours else np.zeros((0, 2), np.float32)


def join_rings(parts: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
    """Return one ring for an object of several parts or with holes, as a polygon of YOLO is one ring.

    The rings of the object are connected by bridges, lines that the ring walks there and back. Filled with
    cv2.fillPoly (even-odd), it gives the object again, and the pixels of those bridges that are not inside
    the object. Their total length is about the least possible.

    Args:
        parts: a mask (h, w); or polygons, each (k, 2) in pixels. What two polygons share becomes a hole.

    Returns:
        (k, 2) float32 pixels x, y. k = 0 for nothing, else at least 3: the points of a pixel or of a line
        are repeated.
    """
    if isinstance(parts, np.ndarray):
        mask = (parts > 0).astype(np.uint8)
        found = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]
    else:
        found = parts
    rings = [ring for points in found if len(ring := np.asarray(points, np.float32).reshape(-1, 2))]
    if not rings:
        return np.zeros((0, 2), np.float32)
    ring = rings[0] if len(rings) == 1 else _connect(rings)
    return np.pad(ring, ((0, max(3 - len(ring), 0)), (0, 0)), mode="edge")


def ring_fractions(ring: np.ndarray, shape_hw: Sequence[int]) -> np.ndarray:
    """Return the ring of a mask (k, 2), in whole pixels, as fractions of the image (k, 2) float64.

    Its points are spread over the areas of their pixels, from the left edge of the leftmost pixel to the
    right edge of the rightmost: the box of the fractions is that of the mask, and truncation of the points
    gives the pixels again.
    """
    if not len(ring):
        return np.zeros((0, 2))
    low, side = ring.min(0), np.ptp(ring, 0)
    along = np.linspace(0, 1, len(ring))[:, None].repeat(2, 1)  # for masks that are one pixel wide
    if not side.any():  # a single pixel: its polygon has an area, too
        along[:, 1] = np.arange(len(ring)) % 2
    spread = np.where(side > 0, (ring - low) / np.maximum(side, 1), along)
    return (ring + _WITHIN * spread) / (shape_hw[1], shape_hw[0])


def polygon_text(fractions: np.ndarray) -> str:
    """Return a polygon (k, 2) of fractions as in a label file: x1 y1 x2 y2 ..., clipped to 0-1.

    Values are rounded up: readers multiply by the size of the image and truncate, and 9.9999 is no 10.
    """
    scale = 10**_DIGITS
    values = np.ceil(np.asarray(fractions, np.float64).ravel() * scale + 0.5).clip(0, scale) / scale
    return " ".join(f"{value:.{_DIGITS}f}" for value in values.tolist())


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Return a mask (h, w) in COCO's compressed run-length encoding: {"size": [h, w], "counts": text}."""
    pixels = np.asarray(mask, bool).ravel(order="F")
    changes = np.flatnonzero(pixels[1:] != pixels[:-1]) + 1
    counts = np.diff(np.concatenate(([0], changes, [len(pixels)]))).tolist() if len(pixels) else [0]
    if len(pixels) and pixels[0]:
        counts.insert(0, 0)  # runs of zeros and ones alternate, and zeros come first
    return {"size": list(mask.shape[:2]), "counts": _to_text(counts)}


def decode_rle(rle: dict[str, Any]) -> np.ndarray:
    """Return the mask (h, w) bool of a run-length encoding, whose counts are text or numbers.

    Raises:
        ValueError: the counts do not describe a mask of that size.
    """
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    try:
        runs = np.array(_from_text(counts) if isinstance(counts, str) else counts, np.int64).reshape(-1)
    except (OverflowError, TypeError) as error:
        raise ValueError(f"counts are not a list of numbers ({error})") from error
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"counts of {int(runs.sum())} pixels for a mask of {height}x{width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


def _connect(rings: Sequence[np.ndarray]) -> np.ndarray:
    """Return one ring (k, 2) that walks all of `rings`, and the bridges between them there and back."""
    length = sum(float(np.abs(np.diff(ring, axis=0, append=ring[:1])).max(1).sum()) for ring in rings)
    step = max(int(length) // _MOST_POINTS, 1)
    divided = [_divide(ring, step) for ring in rings]
    points = np.concatenate([positions for positions, _ in divided])
    kept = np.concatenate([corners for _, corners in divided])
    ends = np.cumsum([len(positions) for positions, _ in divided])
    starts = ends - [len(positions) for positions, _ in divided]
    following = np.arange(1, len(points) + 1)
    following[ends - 1] = starts
    node_points, after = list(range(len(points))), following.tolist()
    for here, there in _find_bridges(points, starts, ends):
        before = there - 1 if there not in starts else int(ends[starts.searchsorted(there)]) - 1
        there_again, here_again = len(after), len(after) + 1
        node_points += [there, here]
        after += [here_again, after[here]]
        after[before], after[here] = there_again, there
        kept[[here, there]] = True
    order, node = [0], after[0]
    while node:
        order.append(node)
        node = after[node]
    path = np.array(node_points)[order]
    return points[path[kept[path]]]


def _divide(ring: np.ndarray, step: int) -> tuple[np.ndarray, np.ndarray]:
    """Add a point to a ring (k, 2) every `step` pixels; return points (n, 2), and which were there (n,) bool.

    Points between whole pixels in a row, column or diagonal are whole pixels, too.
    """
    edges = np.diff(ring, axis=0, append=ring[:1])
    lengths = np.abs(edges).max(1)
    counts = np.maximum(np.ceil(lengths / step), 1).astype(int)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    steps = edges * (step / np.maximum(lengths, 1e-9))[:, None]
    points = np.repeat(ring, counts, axis=0) + np.repeat(steps, counts, axis=0) * number[:, None]
    return points.astype(np.float32), number == 0


def _find_bridges(points: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[tuple[int, int]]:
    """Find the shortest bridges that connect all rings: a minimum spanning tree, by Prim's algorithm.

    Args:
        points: (n, 2), ring by ring.
        starts: (r,) the first point of each ring.
        ends: (r,) the first point after each ring.

    Returns:
        r - 1 pairs of points: one of a ring that is connected with the first ring, and one of the next ring.
    """
    stride = -(-len(points) // (2 * _MOST_POINTS))
    tried = [np.arange(*ends_of_ring, stride) for ends_of_ring in zip(starts, ends, strict=True)]
    owner = np.repeat(np.arange(len(tried)), [len(one) for one in tried])
    rest = np.concatenate(tried)  # points of rings that are not connected yet
    gap, nearest = np.full(len(rest), np.inf), np.zeros(len(rest), int)
    bridges: list[tuple[int, int]] = []
    ring = 0
    for _ in range(len(tried) - 1):
        left = owner != ring
        owner, rest, gap, nearest = owner[left], rest[left], gap[left], nearest[left]
        added = tried[ring]
        to_added = sum((axis[rest, None] - axis[added]) ** 2 for axis in points.T)
        closest = to_added.argmin(1)
        distance = to_added[np.arange(len(rest)), closest]
        closer = distance < gap
        gap[closer], nearest[closer] = distance[closer], added[closest[closer]]
        chosen = int(gap.argmin())
        ring = int(owner[chosen])
        bridges.append((int(nearest[chosen]), int(rest[chosen])))
    return bridges


def _to_text(counts: Sequence[int]) -> str:
    """Encode numbers in groups of 5 bits, from the fourth on as the difference to the second last."""
    characters = []
    for index, count in enumerate(counts):
        value = count - counts[index - 2] if index > 2 else count
        while True:
            group, value = value & 31, value >> 5
            more = value != (-1 if group & 16 else 0)
            characters.append(chr(group + (32 if more else 0) + 48))
            if not more:
                break
    return "".join(characters)


def _from_text(text: str) -> list[int]:
    counts: list[int] = []
    value = shift = 0
    for character in text:
        group = ord(character) - 48
        if not 0 <= group < 64:
            raise ValueError(f"{character!r} is not part of a run-length text")
        if shift > 60:
            raise ValueError("a count of the run-length text is larger than any image")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
