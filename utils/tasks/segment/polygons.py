"""Masks as polygons and as COCO's run-length text, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np


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
    runs = np.array(_from_text(counts) if isinstance(counts, str) else counts, np.int64)
    if (runs < 0).any() or runs.sum() != height * width:
        raise ValueError(f"counts of {int(runs.sum())} pixels for a mask of {height}x{width}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape((height, width), order="F")


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
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        counts.append(value + counts[-2] if len(counts) > 2 else value)
        value = shift = 0
    return counts
