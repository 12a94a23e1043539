"""Options of `python -m serve`; importing this module needs the standard library only."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from utils.base.options import Options, flag
from utils.base.paths import ROOT, relative_to_cwd

_server = partial(flag, group="models and server")
_default = partial(flag, group="inference defaults, which requests can override")
_limit = partial(flag, group="limits and batching")


@dataclass(frozen=True)
class ServeOptions(Options):
    """Options of `python -m serve`."""

    prog = "-m serve"
    description = "Serve detection, segmentation and classification models over HTTP."

    weights: list[str] = _server(["yolov5s.pt"], "model path(s), each served under its own name")
    data: str = _server(
        factory=lambda: relative_to_cwd(ROOT / "data" / "coco128.yaml"),
        help="dataset yaml with class names, for models that contain none",
    )
    host: str = _server("127.0.0.1", "address to listen on; 0.0.0.0 listens on all network interfaces")
    port: int = _server(5000, "port to listen on; 0 picks a free one", between=(0, 65535))
    device: str = _server("", "cpu, mps, or a CUDA device such as 0; empty: the best available")
    half: bool = _server(False, "FP16 inference (CUDA only)")

    imgsz: list[int] = _default(
        [],
        "image size (pixels): one for all models, or one for each; default 640, of classification models "
        "that of their training or 224",
        aliases=("--img", "--img-size"),
        between=(1, 8192),
    )
    conf_thres: float = _default(0.25, "confidence threshold of boxes", between=(0, 1))
    iou_thres: float = _default(0.45, "NMS IoU threshold", between=(0, 1))
    max_det: int = _default(300, "maximum detections per image", between=(1, None))

    max_upload_mb: float = _limit(16, "maximum upload size (MB)")
    max_megapixels: float = _limit(50, "maximum image size (megapixels)")
    max_batch: int = _limit(8, "maximum batch size", between=(1, None))
    max_wait_ms: float = _limit(
        5, "maximum time to wait for a batch to fill (milliseconds)", between=(0, 10_000)
    )
    max_queue: int = _limit(32, "maximum concurrent requests per model", between=(1, None))

    max_per_client: int = _limit(
        16,
        "maximum concurrent requests of one client (IP); 0 for no limit, behind a proxy that hides them",
        between=(0, None),
    )

    def check(self) -> None:
        """Check that there is a model, a size for each, and that the size limits are not zero."""
        models = len(self.weights)
        self.require("weights", models > 0, "at least one file")
        self.require(
            "imgsz", len(self.imgsz) in (0, 1, models), f"one size, or one for each of {models} models"
        )
        for name in ("max_upload_mb", "max_megapixels"):
            self.require(name, 0 < getattr(self, name) <= 1024, "a number above 0, at most 1024")

    @property
    def max_upload(self) -> int:
        """Maximum size of an image file in bytes."""
        return int(self.max_upload_mb * 2**20)

    @property
    def max_pixels(self) -> int:
        """Maximum number of pixels of an image."""
        return int(self.max_megapixels * 1e6)

    @property
    def max_imgsz(self) -> int:
        """Largest input size that a request can ask for."""
        return max([*self.imgsz, 1280])

    def imgsz_of(self, index: int) -> int | None:
        """Return the size for a model, by its position; None for the default of its task."""
        return self.imgsz[index % len(self.imgsz)] if self.imgsz else None
