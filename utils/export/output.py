"""Write exported files and folders atomically, with their metadata."""

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
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `path` when the block ends without an error."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as work:
        draft, old = Path(work, "new"), Path(work, "old")
        draft.mkdir()
        yield draft
        if path.is_dir():
            path.rename(old)
        elif path.exists() or path.is_symlink():
            path.unlink()
        draft.rename(path)


def move(file: Path, path: Path) -> None:
    """Copy a file, which may be on another disk, to `path` atomically."""
    with atomic_write(path) as target, file.open("rb") as source:
        shutil.copyfileobj(source, target)


def write_metadata(file: Path, metadata: dict[str, Any]) -> None:
    """Write metadata such as stride and names as yaml."""
    file.write_text(yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True), encoding="utf-8")


def append_metadata(file: Path, metadata: dict[str, Any]) -> None:
    """Append metadata as a zip archive to a file; readers of flatbuffers ignore what follows them."""
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.txt", str(metadata))
