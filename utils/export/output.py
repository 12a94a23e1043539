"""Write what an exporter makes whole or not at all, with its metadata."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from utils.base.paths import atomic_write


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that takes its place when all is in it."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as beside:
        draft, old = Path(beside, "new"), Path(beside, "old")
        draft.mkdir()
        yield draft
        if path.is_dir():
            path.rename(old)
        elif path.exists() or path.is_symlink():
            path.unlink()
        draft.rename(path)


def move(file: Path, path: Path) -> None:
    """Put a finished file, which may be on another disk, in its place."""
    with atomic_write(path) as target, file.open("rb") as source:
        shutil.copyfileobj(source, target)


def write_metadata(file: Path, metadata: dict[str, Any]) -> None:
    """Write stride, names and the like as yaml."""
    file.write_text(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True), encoding="utf-8")


def append_metadata(file: Path, metadata: dict[str, Any]) -> None:
    """Append a zip archive with one text to a file whose readers don't mind."""
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.txt", str(metadata))
