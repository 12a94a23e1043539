"""Settings of an exporter: what it is given besides the model and an example batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from utils.export.export_options import ExportOptions


@dataclass(frozen=True, kw_only=True)
class ExportSettings(ExportOptions):
    """Options for one format, with what the checkpoint and the dataset add to them."""

    stride: int  # the model's largest
    names: dict[int, str] = field(default_factory=dict)
    # Loads images (B, 3, H, W) in 0-1 for calibration; None without --int8.
    calibration_images: Callable[[], Sequence[Tensor]] | None = None

    def metadata(self, images: Tensor | None = None) -> dict[str, Any]:
        """Return the metadata to store in a file.

        Args:
            images: the example batch (B, 3, H, W), for a file that accepts no other size.
        """
        metadata: dict[str, Any] = {"stride": self.stride, "names": self.names}
        if self.nms:
            metadata["nms"] = {"conf": self.conf_thres, "iou": self.iou_thres}
        if images is not None:
            metadata |= {"imgsz": list(images.shape[2:]), "batch": len(images)}
        return metadata
