"""Official YOLOv5 weights: their names, where they are published, and how to download one."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

from utils.base.download import download_file, matches
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.paths import cache_folder

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
LICENCE = "AGPL-3.0 (https://github.com/ultralytics/yolov5)"
_TIMEOUT = 8.0  # seconds; people without a network wait for it
_LARGEST = 2**30  # bytes; the largest official file is a third of that


@dataclass(frozen=True)
class Weights:
    """What is known of a published file; None where it was never checked."""

    sha256: str | None = None
    size: int | None = None


OFFICIAL = {f"yolov5{scale}{p6}.pt": Weights() for p6 in ("", "6") for scale in "nsmlx"} | {
    "yolov5n.pt": Weights("4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3", 4_062_133),
}


def is_official(name: str | Path) -> bool:
    """Tell whether a bare name such as `yolov5s.pt` belongs to the public release."""
    return str(name) in OFFICIAL


def cached_official(name: str) -> Path | None:
    """The file of an official name if an earlier run downloaded it."""
    path = cache_folder() / "weights" / name
    return path if path.is_file() and _is_sound(path, OFFICIAL[name]) else None


def download_official(name: str) -> Path:
    """Return an official weight file from the cache folder, downloaded there if need be.

    Raises:
        ConfigError: no official name.
        DataError: no network, or what arrives is not that file.
    """
    if name not in OFFICIAL:
        raise ConfigError(f"{name}: not an official weight file; those are {', '.join(OFFICIAL)}")
    if (path := cached_official(name)) is not None:
        return path
    path, known = cache_folder() / "weights" / name, OFFICIAL[name]
    path.unlink(missing_ok=True)
    LOG.info(f"Downloading {name} from {RELEASE}. The licence of these weights is {LICENCE}.")
    download_file(
        f"{RELEASE}/{name}", path, sha256=known.sha256, size=known.size, limit=_LARGEST, timeout=_TIMEOUT
    )
    if not _is_sound(path, known):
        path.unlink()
        raise DataError(f"{RELEASE}/{name}: what arrived is not a checkpoint; not kept")
    return path


def _is_sound(path: Path, known: Weights) -> bool:
    """A checkpoint is a zip file; where nothing else is known, that tells it from a log-in page."""
    return matches(path, known.sha256, known.size) and zipfile.is_zipfile(path)
