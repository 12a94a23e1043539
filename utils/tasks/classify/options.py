"""Options of classify/train.py, classify/val.py and classify/predict.py; needs only the standard library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from utils.base.errors import ConfigError
from utils.base.options import flag
from utils.base.paths import runs_folder
from utils.predict.detect_options import DetectOptions
from utils.train.train_options import TrainOptions
from utils.val.val_options import ValOptions

_DATA = "shapes-cls"
_MODEL, _TRAINING, _RUN = "model and data", "training", "validation"
_DATA_HELP = "folder with train and val, or the name of a known dataset such as imagenette160"


@dataclass(frozen=True)
class ClassifyTrainOptions(TrainOptions):
    """Options of classify/train.py."""

    prog, description = "classify/train.py", "Train a classification model."
    model_task: ClassVar[str] = "classify"
    example_cfg: ClassVar[str] = "yolov5s-cls-LSKA.yaml"
    hidden: ClassVar[tuple[str, ...]] = (
        *("single_cls", "rect", "fast_decode", "multi_scale", "quad"),
        *("noautoanchor", "upload_dataset", "bbox_interval"),
    )

    weights: str = flag(
        "yolov5s-cls.pt",
        "a classifier, a detector to cut, or the name of a torchvision model; '' trains --cfg from scratch",
        group=_MODEL, spelled="--model", aliases=("--weights",),
    )  # fmt: skip
    cutoff: int | None = flag(
        None, "layers of a detector to keep, the last one is replaced; 10 by default", group=_MODEL,
        between=(0, None),
    )  # fmt: skip
    pretrained: str | bool = flag(
        True, "use the weights of --model; false: its architecture only", group=_MODEL, const=True
    )
    data: str = flag(_DATA, _DATA_HELP, group=_MODEL)
    hyp: str | dict[str, Any] = flag(
        "", "yaml of hyperparameters, which take the place of --lr0, --decay and --label-smoothing",
        group=_MODEL,
    )  # fmt: skip
    imgsz: int = flag(
        224, "image size (pixels)", group=_MODEL, aliases=("--img", "--img-size"), between=(1, None),
        expected="a number of pixels such as 224",
    )  # fmt: skip
    epochs: int = flag(10, "total number of epochs", group="length of the run", between=(1, None))
    batch_size: int = flag(64, "batch size, over all processes; -1: AutoBatch", group=_TRAINING)
    optimizer: str = flag("Adam", "optimizer", group=_TRAINING, choices=("SGD", "Adam", "AdamW", "RMSProp"))
    lr0: float = flag(0.001, "initial learning rate", group=_TRAINING)
    decay: float = flag(5e-5, "weight decay", group=_TRAINING, between=(0, 1))
    label_smoothing: float = flag(0.1, "label smoothing epsilon", group=_TRAINING)
    noaugment: bool = flag(
        False, "train on centre crops, as YOLOv5 does where Albumentations is not installed", group=_TRAINING
    )
    dropout: float | None = flag(None, "dropout probability of the head", group=_TRAINING, between=(0, 1))
    verbose: bool = flag(False, "log a row for each class in every validation", group=_TRAINING)
    project: str = flag(
        factory=lambda: runs_folder("train-cls"), help="folder that contains the run folders", group="output"
    )

    evolve_population: str = flag(
        "", "population: folder of the initial members; empty: random ones",
        group="hyperparameter evolution", spelled="--evolve_population",
    )  # fmt: skip

    def check(self) -> None:
        """Check what concerns classification alone, and what `TrainOptions` checks."""
        super().check()
        self.require("lr0", self.lr0 > 0, "a learning rate above 0 such as 0.001")
        if self.cfg and self.weights and not Path(self.weights).suffix:
            raise ConfigError(f"--model {self.weights}: a model of torchvision takes no --cfg; leave one out")
        # As YOLOv5 does: any text but `true` is false.
        object.__setattr__(self, "pretrained", str(self.pretrained).lower() == "true")


@dataclass(frozen=True)
class ClassifyValOptions(ValOptions):
    """Options of classify/val.py."""

    prog, description = "classify/val.py", "Measure a classification model on images in class folders."
    model_task: ClassVar[str] = "classify"
    hidden: ClassVar[tuple[str, ...]] = (
        *("single_cls", "conf_thres", "iou_thres", "max_det", "match", "augment"),
        *("save_txt", "save_hybrid", "save_conf", "save_json", "ann"),
    )

    weights: list[str] = flag(["yolov5s-cls.pt"], "model path", group=_MODEL)
    data: str = flag(_DATA, _DATA_HELP, group=_MODEL)
    task: str = flag(
        "val", "split to measure, or speed (of each model)", group=_MODEL,
        choices=("train", "val", "test", "speed"),
    )  # fmt: skip
    imgsz: int = flag(
        224, "image size (pixels)", group=_MODEL, aliases=("--img", "--img-size"), between=(1, None)
    )
    batch_size: int = flag(128, "batch size", group=_RUN, between=(1, None))
    # YOLOv5 takes a value for this flag: `--verbose False`.
    verbose: str | bool = flag(  # type: ignore[assignment]
        True, "log a row for each class; false: none", group="output", const=True
    )
    project: str = flag(
        factory=lambda: runs_folder("val-cls"), help="folder that contains the run folders", group="output"
    )

    def check(self) -> None:
        """Check what `ValOptions` checks, and read --verbose."""
        super().check()
        object.__setattr__(self, "verbose", str(self.verbose).lower() == "true")


@dataclass(frozen=True)
class ClassifyPredictOptions(DetectOptions):
    """Options of classify/predict.py."""

    prog, description = "classify/predict.py", "Classify images, videos and streams."
    model_task: ClassVar[str] = "classify"
    hidden: ClassVar[tuple[str, ...]] = (
        *("conf_thres", "iou_thres", "max_det", "classes", "agnostic_nms", "augment"),
        *("save_format", "save_conf", "save_crop", "line_thickness", "hide_labels", "hide_conf"),
    )

    weights: list[str] = flag(["yolov5s-cls.pt"], "model path", group="model and source")
    data: str = flag(
        "", "class folders, or a data yaml, with class names for models that contain none",
        group="model and source",
    )  # fmt: skip
    imgsz: tuple[int, int] = flag(
        (224, 224), "image size (pixels)", group="inference", aliases=("--img", "--img-size")
    )
    save_txt: bool = flag(
        False, "write labels/*.txt: probability and name of the five best classes", group="results to save"
    )
    save_csv: bool = flag(
        False, "write predictions.csv, one line per image and class", group="results to save"
    )
    project: str = flag(
        factory=lambda: runs_folder("predict-cls"),
        help="folder that contains the run folders",
        group="results to save",
    )
