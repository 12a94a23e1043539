"""Download the public datasets that data yamls name: only from URLs, after consent, never by a script."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from utils.base.download import download_file
from utils.base.errors import ConfigError, DataError
from utils.base.log import LOG
from utils.base.paths import command_for
from utils.data.archive import is_archive, merge, safe_unpack


@dataclass(frozen=True)
class Download:
    """One file to download for a dataset."""

    url: str
    sha256: str | None = None
    size: int | None = None  # bytes
    into: str = "."  # folder below the dataset's root

    @property
    def file_name(self) -> str:
        """The last part of the URL's path."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def __str__(self) -> str:
        size = f" ({self.size / 1e6:,.0f} MB)" if self.size else ""
        return f"{self.url}{size}"


def parse_downloads(value: Any, where: str) -> list[Download]:
    """Parse the `download:` value of a data yaml.

    Args:
        value: a URL, or a list of URLs and of mappings {url, sha256, size, into}; None for no download.
        where: name of the yaml, for error messages.

    Raises:
        ConfigError: any other value, above all the scripts of older yamls, which are never run.
    """
    if value is None:
        return []
    return [_parse(item, where) for item in (value if isinstance(value, list) else [value])]


def _parse(item: Any, where: str) -> Download:
    info = {"url": item} if isinstance(item, str) else item
    if not isinstance(info, dict) or not isinstance(info.get("url"), str):
        raise ConfigError(f"{where}: download: expected URLs or mappings with url:, got {item!r}")
    url = info["url"].strip()
    if not re.fullmatch(r"https?://[^\s/]+/\S+", url):
        first = url.splitlines()[0][:60] if url else ""
        raise ConfigError(
            f"{where}: download: {first!r} is not an http(s) URL; scripts in a yaml are not run"
        )
    if unknown := set(info) - {"url", "sha256", "size", "into"}:
        raise ConfigError(f"{where}: download: unknown key {sorted(map(str, unknown))[0]!r} beside url")
    sha256, size, into = info.get("sha256"), info.get("size"), str(info.get("into", "."))
    if sha256 is not None and not (isinstance(sha256, str) and re.fullmatch(r"[0-9a-fA-F]{64}", sha256)):
        raise ConfigError(f"{where}: download: sha256 {sha256!r} is not text of 64 hexadecimal digits")
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise ConfigError(f"{where}: download: size {size!r} is not a number of bytes")
    if PurePosixPath(into).is_absolute() or ".." in PurePosixPath(into).parts or "\\" in into:
        raise ConfigError(f"{where}: download: into {into!r} has to be a folder below path")
    return Download(url, sha256, size, into)


def download_data(
    downloads: Sequence[Download], root: Path, *, allowed: bool = False, name: str = "data yaml"
) -> None:
    """Download files into the folder of a dataset, and unpack the archives among them.

    An archive whose only entry is a folder with the name of `root` becomes `root`; any other is unpacked
    below it. After an error, a second run keeps the files that were downloaded.

    Args:
        downloads: the result of `parse_downloads`.
        root: folder of the dataset.
        allowed: download without asking the user.
        name: name of the yaml, for messages.

    Raises:
        ConfigError: the user has not agreed, or there is no terminal to ask.
        DataError: a file cannot be downloaded, or has another size or hash than expected.
    """
    if not downloads:
        raise DataError(f"{name}: its images are not in {root}, and it names no download")
    if not allowed and not _user_agrees(downloads, root, name):
        urls = ", ".join(item.url for item in downloads)
        command = f"{command_for('-m utils.data get')} {name}"
        raise ConfigError(f"{name}: its images are not in {root}; `{command}` downloads {urls}")
    kept = root.parent / f".{root.name}-downloads"
    for number, item in enumerate(downloads):
        LOG.info(f"Downloading {item}")
        if is_archive(item.file_name):
            archive = kept / f"{number}-{item.file_name}"
            download_file(item.url, archive, sha256=item.sha256, size=item.size)
            _unpack_into(root, archive, root / item.into)
        else:
            download_file(item.url, root / item.into / item.file_name, sha256=item.sha256, size=item.size)
    shutil.rmtree(kept, ignore_errors=True)


def _user_agrees(downloads: Sequence[Download], root: Path, name: str) -> bool:
    if not sys.stdin.isatty():
        return False
    LOG.info(f"{name}: its images are not in {root}. They can be downloaded from:")
    for item in downloads:
        LOG.info(f"  {item}")
    try:
        return input("Download them now? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _unpack_into(root: Path, archive: Path, target: Path) -> None:
    # Unpacked beside the root, so that a partial dataset is never taken for the dataset.
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as folder:
        try:
            fresh = safe_unpack(archive, Path(folder) / "unpacked")
        except DataError:
            archive.unlink()  # the next run downloads it again
            raise
        children = list(fresh.iterdir())
        if len(children) == 1 and children[0].is_dir() and children[0].name == root.name:
            fresh, target = children[0], root
        target.parent.mkdir(parents=True, exist_ok=True)
        merge(fresh, target)
