"""YOLOv5's `utils.downloads`: official weights and files by URL, with our limits and checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from utils.base.errors import YoloError
from utils.base.log import LOG
from utils.base.yolov5_names import unavailable
from utils.compat.checks import url2file

_ADVICE = "attempt_download downloads official weights, download other files"
gdrive_download = unavailable("gdrive_download", _ADVICE)
get_token = unavailable("get_token", _ADVICE)
gsutil_getsize = unavailable("gsutil_getsize", _ADVICE)
url_getsize = unavailable("url_getsize", _ADVICE)
curl_download = unavailable("curl_download", _ADVICE)


def attempt_download(
    file: Any, repo: str = "ultralytics/yolov5", release: str = "v7.0", **ignored: Any
) -> str:
    """Return the path of a weights file; an official name or a URL is downloaded if it does not exist.

    Any other name is returned as it is, also when there is no such file.
    """
    from models.official_weights import OFFICIAL, download_official

    name = str(file).strip().replace("'", "")
    if Path(name).exists():
        return name
    try:
        if name.startswith(("http:/", "https:/")):
            target = url2file(name)
            if not Path(target).is_file():
                safe_download(target, name)
            return target
        if Path(name).name in OFFICIAL and repo == "ultralytics/yolov5":
            return str(download_official(Path(name).name))
    except YoloError as error:
        LOG.warning(f"{name}: {error}")
    return name


def safe_download(file: Any, url: str, url2: str | None = None, **ignored: Any) -> None:
    """Download a URL to a file."""
    from utils.base.download import download_file

    download_file(url, Path(file))


def is_url(url: Any, check: bool = True) -> bool:
    """Return whether a text is a URL; with `check`, also whether something answers there."""
    parts = urlsplit(str(url))
    if not (parts.scheme and parts.netloc):
        return False
    if not check:
        return True
    from urllib.request import urlopen

    if parts.scheme not in ("http", "https"):
        return False
    try:
        with urlopen(str(url), timeout=5) as answer:
            return bool(answer.getcode() == 200)
    except (OSError, ValueError):
        return False
