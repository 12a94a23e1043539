"""What `detect.py` looks at, one picture at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

Kind = Literal["image", "video", "stream", "screen"]
Fit = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) -> letterboxed (h, w, 3)

FALLBACK_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """A picture and where it comes from.

    `original` is (H, W, 3) uint8 BGR as it was read, `image` the same fitted to the network.
    """

    path: Path  # the file; for streams and screens a name fit for files
    original: np.ndarray
    image: np.ndarray
    kind: Kind = "image"
    index: int = 1  # which file or stream of the source, from 1
    count: int = 1  # of so many
    frame_number: int = 0  # within its video or stream, from 1, as delivered
    total: int = 0  # frames that its video will deliver; 0 if nobody knows
    fps: float = FALLBACK_FPS  # frames a second as delivered, so the source's divided by --vid-stride


def delivered_fps(source_fps: float, vid_stride: int) -> float:
    """Frames a second that come out; streams and broken files report 0, NaN or nonsense, then 30 go in."""
    return (source_fps if 0 < source_fps < 1000 else FALLBACK_FPS) / vid_stride
