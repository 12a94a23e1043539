"""What the server can be asked for on its command line."""

from __future__ import annotations

from dataclasses import dataclass

from utils.base.checks import Checked, listed


@dataclass(frozen=True)
class ServeOptions(Checked):
    """The flags of `python -m serve`, by their names; checked."""

    weights: list[str]
    data: str = ""
    host: str = "127.0.0.1"
    port: int = 5000
    device: str = ""
    half: bool = False
    imgsz: int = 640
    conf_thres: float = 0.25
    iou_thres: float = 0.45
    max_det: int = 300
    max_upload_mb: float = 16
    max_megapixels: float = 50
    max_batch: int = 8
    max_wait_ms: float = 5
    max_queue: int = 32

    def __post_init__(self) -> None:
        """Bring loose values into form (`weights="a.pt"`) and refuse impossible ones."""
        object.__setattr__(self, "weights", [str(name) for name in listed(self.weights)])
        self._require("weights", bool(self.weights), "at least one file")
        self._require("port", 0 <= self.port <= 65535, "a number from 0 to 65535")
        self._require("imgsz", 1 <= self.imgsz <= 8192, "pixels from 1 to 8192")
        for name in ("conf_thres", "iou_thres"):
            self._require(name, 0 <= getattr(self, name) <= 1, "a number from 0 to 1")
        for name in ("max_det", "max_batch", "max_queue"):
            self._require(name, getattr(self, name) >= 1, "a whole number from 1")
        for name in ("max_upload_mb", "max_megapixels"):
            self._require(name, 0 < getattr(self, name) <= 1024, "a number above 0, at most 1024")
        self._require("max_wait_ms", 0 <= self.max_wait_ms <= 10_000, "milliseconds from 0 to 10000")

    @property
    def max_upload(self) -> int:
        """Bytes of the largest image file."""
        return int(self.max_upload_mb * 2**20)

    @property
    def max_pixels(self) -> int:
        """Pixels of the largest image."""
        return int(self.max_megapixels * 1e6)

    @property
    def max_imgsz(self) -> int:
        """The largest network input that a request may ask for."""
        return max(self.imgsz, 1280)
