"""A frame of a source: its pixels, and where they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from utils.data.image_header import check_count

Kind = Literal["image", "video", "stream", "screen"]

FALLBACK_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """An image as it was read from a source.

    Attributes:
        path: its file; for streams and screens a name that is valid as a file name.
        image: (H, W, 3) uint8 BGR.
        kind: what it comes from.
        index: number of its file or stream in the source, from 1.
        count: number of files or streams of the source.
        frame_number: its number in the video or stream, from 1, every `--vid-stride`-th frame counted.
        total: frames of the video, counted in the same way; 0 if unknown.
        fps: frames per second, counted in the same way.
    """

    path: Path
    image: np.ndarray
    kind: Kind = "image"
    index: int = 1
    count: int = 1
    frame_number: int = 0
    total: int = 0
    fps: float = FALLBACK_FPS


def check_frame_size(capture: cv2.VideoCapture, name: str, size: int = 0) -> None:
    """Refuse a video whose frames have too many pixels.

    Args:
        capture: the video, open.
        name: its name in the message.
        size: bytes of its file; 0 for a stream.

    Raises:
        DataError: they have, see `check_count`.
    """
    width, height = (capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    check_count(int(width * height), size, name)


def strided_fps(fps: float, vid_stride: int) -> float:
    """Return the frame rate after `--vid-stride`; a rate of 0 or NaN, as streams report it, counts as 30."""
    return (fps if 0 < fps < 1000 else FALLBACK_FPS) / vid_stride
