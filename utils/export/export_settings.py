"""What all exporters share: their settings, and how they write files and folders atomically."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from utils.base.paths import atomic_write
from utils.export.export_options import ExportOptions


@dataclass(frozen=True, kw_only=True)
class ExportSettings(ExportOptions):
    """Options for one format, with what the checkpoint and the dataset add to them."""

    stride: int  # the model's largest
    task: str = "detect"
    coefficients: int = 0  # mask coefficients of each box
    names: dict[int, str] = field(default_factory=dict)
    # Loads images (B, 3, H, W) in 0-1 for calibration; None without --int8.
    calibration_images: Callable[[], Sequence[Tensor]] | None = None

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs: decoded boxes, and the mask prototypes of a segmentation model."""
        return ["output0", "output1"] if self.task == "segment" else ["output0"]

    def metadata(self, images: Tensor | None = None) -> dict[str, Any]:
        """Return the metadata to store in a file.

        Args:
            images: the example batch (B, 3, H, W), for a file that accepts no other size.
        """
        metadata: dict[str, Any] = {"task": self.task, "stride": self.stride, "names": self.names}
        if self.nms:
            metadata["nms"] = {"conf": self.conf_thres, "iou": self.iou_thres}
        if images is not None:
            metadata |= {"imgsz": list(images.shape[2:]), "batch": len(images)}
        return metadata


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
