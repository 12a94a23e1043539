"""Find the file of weights, or download an official one."""

from __future__ import annotations

import difflib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from utils.base.errors import ConfigError, DataError, MissingFileError
from utils.base.inputs import expand_user
from utils.base.log import LOG
from utils.base.paths import ROOT, cache_folder

RELEASE = "https://github.com/ultralytics/yolov5/releases/download/v7.0"
LICENCE = "AGPL-3.0 (https://github.com/ultralytics/yolov5)"
_TIMEOUT = 8.0  # seconds until a download gives up where there is no network
_LARGEST = 2**30  # bytes; the largest official file has a third of that


@dataclass(frozen=True)
class OfficialFile:
    """SHA-256 and size of a published file; None where we have not verified them."""

    sha256: str | None = None
    size: int | None = None


OFFICIAL = {f"yolov5{scale}{kind}.pt": OfficialFile() for kind in ("", "6", "-seg") for scale in "nsmlx"} | {
    "yolov5n.pt": OfficialFile("4f180cf23ba0717ada0badd6c685026d73d48f184d00fc159c2641284b2ac0a3", 4_062_133),
}


def locate_weights(name: str | Path) -> Path:
    """Find a weights file: as given, in the project, in the cache folder, or by downloading an official one.

    Raises:
        ConfigError: there is no such file, and the name is not an official one.
        DataError: the download of an official file failed; the message says what to do.
    """
    path = expand_user(name)
    for candidate in (path, ROOT / path):
        if candidate.is_file():
            return candidate
    if path.name in OFFICIAL and path.parent.resolve() in (Path().resolve(), ROOT):
        return download_official(path.name)
    files = [file.name for file in path.parent.glob("*.pt")] if path.parent.is_dir() else []
    near = difflib.get_close_matches(path.name, sorted({*files, *OFFICIAL}), n=3)
    hint = f"; did you mean {', '.join(near)}?" if near else ""
    raise MissingFileError(f"--weights {name}: no such file{hint}")


def download_official(name: str) -> Path:
    """Return an official weights file from the cache folder; download it if it is not there.

    Raises:
        ConfigError: the name is not official.
        DataError: there is no network, or the download is not the published file.
    """
    from utils.base.download import download_file

    if name not in OFFICIAL:
        raise ConfigError(f"{name}: not an official weight file; those are {', '.join(OFFICIAL)}")
    path, known = cache_folder() / "weights" / name, OFFICIAL[name]
    if path.is_file() and _is_intact(path, known):
        return path
    path.unlink(missing_ok=True)
    LOG.info(f"Downloading {name} from {RELEASE}. The licence of these weights is {LICENCE}.")
    url = f"{RELEASE}/{name}"
    download_file(url, path, sha256=known.sha256, size=known.size, limit=_LARGEST, timeout=_TIMEOUT)
    if not _is_intact(path, known):
        path.unlink()
        raise DataError(f"{url}: the download is not a checkpoint and was deleted")
    return path


def _is_intact(path: Path, known: OfficialFile) -> bool:
    """Return whether hash and size are right, and the file is a zip, which a server's error page is not."""
    from utils.base.download import matches

    return matches(path, known.sha256, known.size) and zipfile.is_zipfile(path)
