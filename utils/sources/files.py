"""Frames, and the image and video files that a `--source` means: a file, a folder, a glob, or a list."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.data.images import IMAGE_SUFFIXES, VIDEO_SUFFIXES

Kind = Literal["image", "video", "stream", "screen"]
Fit = Callable[[np.ndarray], np.ndarray]  # (H, W, 3) -> letterboxed (h, w, 3)

FALLBACK_FPS = 30.0


@dataclass(frozen=True)
class Frame:
    """An image and where it comes from.

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


def is_image(path: Path | str) -> bool:
    """Whether a name ends like an image's, in small or capital letters."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def is_video(path: Path | str) -> bool:
    """Whether a name ends like a video's, in small or capital letters."""
    return Path(path).suffix.lower() in VIDEO_SUFFIXES


def find_files(source: str) -> tuple[list[Path], int]:
    """List the usable files of a source, images first, then videos, each file once.

    Returns:
        Absolute paths (links not followed, so that names stay), and how many entries of a list were missing.

    Raises:
        ConfigError: the source does not exist.
        DataError: it holds no image and no video.
    """
    missing = 0
    if source.lower().endswith(".txt"):
        found, missing = _read_list(Path(source).expanduser(), source)
    elif (here := _expand(source)) is not None:
        found = here
    else:
        raise ConfigError(f"--source {source}: no such file or folder")
    unique = list(dict.fromkeys(Path(os.path.abspath(path)) for path in found))
    usable = [path for path in unique if is_image(path)] + [path for path in unique if is_video(path)]
    if not usable:
        images, videos = (" ".join(names).replace(".", "") for names in (IMAGE_SUFFIXES, VIDEO_SUFFIXES))
        raise DataError(f"--source {source}: no image ({images}) and no video ({videos}) there")
    return usable, missing


def _read_list(file: Path, source: str) -> tuple[list[Path], int]:
    """Read one path, folder or glob per line; relative ones are looked for here, then beside the list."""
    try:
        text = file.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else error.strerror
        raise ConfigError(f"--source {source}: {reason}") from error
    found: list[Path] = []
    missing = 0
    for line in filter(None, map(str.strip, text.splitlines())):
        beside = str(file.parent / line)
        # `./` means the list's folder in the original's lists, so that one wins.
        places = (beside, line) if line.startswith("./") else (line, beside)
        paths = next((files for files in map(_expand, places) if files), None)
        if paths is None:
            LOG.warning(f"{file}: {line}: skipped, no such file or folder")
            missing += 1
        found += paths or []
    return found, missing


def _expand(text: str) -> list[Path] | None:
    """The files that one path, folder or glob stands for; None if there is nothing of that name.

    What exists under the very name comes first, so `[1]` and `*` in names of folders do no harm.
    """
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return sorted(file for file in path.iterdir() if file.is_file() and file.name[0] != ".")
        if path.exists():
            return [path]
    except OSError as error:
        raise DataError(f"--source {text}: {error.strerror}") from error
    if "*" not in text:
        return None
    # Brackets are more often part of a name than a set of letters.
    for pattern in (str(path).replace("[", "[[]"), str(path)):
        if matches := sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207 - also absolute
            return [Path(match) for match in matches if Path(match).is_file()]
    return None
