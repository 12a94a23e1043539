"""Options of val.py; needs nothing but the standard library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from utils.base import options
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.options import BLOCKS_HELP, Options, flag
from utils.base.paths import ROOT, relative_to_cwd, runs_folder

METRIC_CONF = 0.001  # mAP integrates over all confidences, so nearly all boxes are needed

_data = partial(flag, group="model and data")
_run = partial(flag, group="inference")
_out = partial(flag, group="output")


@dataclass(frozen=True)
class ValOptions(Options):
    """Options of val.py."""

    prog, description = "val.py", "Measure a model on labelled images."
    model_task: ClassVar[str] = "detect"

    weights: list[str] = _data(["yolov5s.pt"], "model path(s); several .pt files form an ensemble")
    blocks: str = _data("", BLOCKS_HELP)
    data: str = _data(factory=lambda: relative_to_cwd(ROOT / "data" / "coco128.yaml"), help="dataset yaml")
    download: bool = _data(False, "download the dataset as its yaml says, if it is missing")
    task: str = _data(
        "val",
        "split to measure, or speed (of each model), or study (accuracy and speed over image sizes)",
        choices=("train", "val", "test", "speed", "study"),
    )
    imgsz: int = _data(640, "image size (pixels)", aliases=("--img", "--img-size"))
    single_cls: bool = _data(False, "treat all classes as one")

    batch_size: int = _run(32, "batch size", between=(1, None))
    conf_thres: float = _run(METRIC_CONF, "confidence threshold", between=(0, 1))
    iou_thres: float = _run(0.6, "NMS IoU threshold", between=(0, 1))
    max_det: int = _run(300, "maximum detections per image", between=(1, None))
    match: str = _run(
        "legacy",
        "rule that matches detections to labels: that of the original, or that of the COCO tools",
        choices=("legacy", "coco"),
    )
    augment: bool = _run(False, "test-time augmentation (.pt files only)")
    half: bool = _run(False, "FP16 inference (CUDA only)")
    dnn: bool = _run(False, "run ONNX models with OpenCV DNN")
    runtime: str = _run("", "ONNX Runtime's provider(s), OpenVINO's device, or for .pt bf16 and graph (CUDA)")
    device: str = _run("", "cpu, mps, or a CUDA device such as 0; empty: the best available")
    workers: int = _run(8, "maximum number of dataloader workers", between=(0, None))

    verbose: bool = _out(False, "log the metrics of each class, however many classes there are")
    save_txt: bool = _out(False, "write labels/*.txt, one line per box")
    save_hybrid: bool = _out(False, "write detections and true labels together to labels/*.txt")
    save_conf: bool = _out(False, "append the confidence to each line of labels/*.txt")
    save_json: bool = _out(
        False, "write a COCO results file, and score it with the COCO tools; always on for coco.yaml"
    )
    ann: str = _out(
        "",
        "COCO annotations to score --save-json against; by default those of the data yaml, or "
        "annotations/instances_<split>*.json of the dataset",
        metavar="FILE",
    )
    project: str = _out(factory=lambda: runs_folder("val"), help="folder that contains the run folders")
    name: str = _out("exp", "name of the run folder, numbered if it exists")
    exist_ok: bool = _out(False, "write into the run folder even if it exists")

    def check(self) -> None:
        """Switch on the outputs that other options imply."""
        save_json = self.save_json or bool(self.ann) or self.data.endswith("coco.yaml")
        object.__setattr__(self, "save_json", save_json)
        if self.ann and self.task in ("speed", "study"):
            raise ConfigError(f"--ann {self.ann}: --task {self.task} has no COCO scores; leave it out")
        object.__setattr__(self, "save_txt", self.save_txt or self.save_hybrid)


def parse_options(argv: Sequence[str] | None = None, cls: type[ValOptions] = ValOptions) -> ValOptions:
    """Parse a command line, and warn about options that distort the mAP."""
    return _warn(options.parse_options(cls, argv))


def options_from(keywords: dict[str, Any], cls: type[ValOptions] = ValOptions) -> ValOptions:
    """Make options from keywords, and warn about those that distort the mAP."""
    return _warn(options.options_from(cls, keywords))


def _warn(options: ValOptions) -> ValOptions:
    if options.task in ("train", "val", "test"):
        if options.conf_thres > METRIC_CONF:
            LOG.warning(f"--conf-thres {options.conf_thres} > {METRIC_CONF} drops boxes: mAP will be too low")
        if options.save_hybrid:
            LOG.warning("--save-hybrid: the labels count as detections, so mAP will be too high")
    else:
        asked = options.save_json and not options.data.endswith("coco.yaml")  # which implies it
        flags = [flag for flag, on in (("--save-json", asked), ("--save-txt", options.save_txt)) if on]
        if flags:
            LOG.warning(f"{', '.join(flags)}: --task {options.task} writes no detections")
    return options
