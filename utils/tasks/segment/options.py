"""Options of segment/train.py, segment/val.py and segment/predict.py; needs only the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from utils.base.errors import ConfigError
from utils.base.options import flag
from utils.base.paths import ROOT, relative_to_cwd, runs_folder
from utils.predict.detect_options import DetectOptions
from utils.train.train_options import TrainOptions
from utils.val.val_options import ValOptions

_TASK = "masks"  # the heading of the flags that detection does not have


@dataclass(frozen=True)
class SegmentTrainOptions(TrainOptions):
    """Options of segment/train.py."""

    prog, description = "segment/train.py", "Train a YOLOv5 segmentation model."
    model_task: ClassVar[str] = "segment"
    example_cfg: ClassVar[str] = "yolov5s-seg-LSKA.yaml"

    weights: str = flag("yolov5s-seg.pt", "initial weights; '' trains from scratch", group="model and data")
    data: str = flag("data/shapes-seg.yaml", "dataset yaml", group="model and data")
    project: str = flag(
        factory=lambda: runs_folder("train-seg"), help="folder that contains the run folders", group="output"
    )
    mask_ratio: int = flag(
        4, "the input is this many times as large as the true masks", group=_TASK, between=(1, 32)
    )
    no_overlap: bool = flag(False, "a mask for each object, instead of a map for each image", group=_TASK)

    def check(self) -> None:
        """Check what concerns segmentation alone, and what `TrainOptions` checks."""
        super().check()
        if self.quad:
            raise ConfigError("--quad joins images without their masks; leave it out")


@dataclass(frozen=True)
class SegmentValOptions(ValOptions):
    """Options of segment/val.py."""

    prog, description = "segment/val.py", "Measure a segmentation model on labelled images."
    model_task: ClassVar[str] = "segment"

    weights: list[str] = flag(
        ["yolov5s-seg.pt"], "model path; masks of several models cannot be merged", group="model and data"
    )
    data: str = flag(
        factory=lambda: relative_to_cwd(ROOT / "data" / "coco128-seg.yaml"), help="dataset yaml",
        group="model and data",
    )  # fmt: skip
    project: str = flag(
        factory=lambda: runs_folder("val-seg"), help="folder that contains the run folders", group="output"
    )
    mask_size: str = flag(
        "quarter",
        "size at which masks are compared: a quarter of the input, as YOLOv5 does, or the full input",
        choices=("quarter", "full"),
        group=_TASK,
    )

    def check(self) -> None:
        """Check what concerns segmentation alone, and what `ValOptions` checks."""
        super().check()
        _refuse_augment(self.augment)
        if self.save_hybrid:
            raise ConfigError("--save-hybrid: true labels have no mask coefficients; leave it out")


@dataclass(frozen=True)
class PredictOptions(DetectOptions):
    """Options of segment/predict.py."""

    prog, description = "segment/predict.py", "Segment objects in images, videos and streams."
    model_task: ClassVar[str] = "segment"

    weights: list[str] = flag(
        ["yolov5s-seg.pt"], "model path; masks of several models cannot be merged", group="model and source"
    )
    project: str = flag(
        factory=lambda: runs_folder("predict-seg"),
        help="folder that contains the run folders",
        group="results to save",
    )
    retina_masks: bool = flag(False, "masks at the resolution of the image, not of the input", group=_TASK)

    def check(self) -> None:
        """Check what concerns segmentation alone, and what `DetectOptions` checks."""
        super().check()
        _refuse_augment(self.augment)
        if self.save_format:
            raise ConfigError("--save-format: masks are saved as polygons; leave it out")


def _refuse_augment(augment: bool) -> None:
    if augment:
        raise ConfigError("--augment: test-time augmentation gives boxes only; leave it out for masks")
