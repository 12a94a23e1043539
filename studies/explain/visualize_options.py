"""Options of visualize.py."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from utils.base.options import BLOCKS_HELP, Options, flag
from utils.base.paths import ROOT, relative_to_cwd, runs_folder

DEFAULT_WEIGHTS = "yolov5s.pt"

_models = partial(flag, group="models and images")
_maps = partial(flag, group="maps")
_inference = partial(flag, group="inference")
_output = partial(flag, group="output")


@dataclass(frozen=True)
class VisualizeOptions(Options):
    """Options of visualize.py."""

    prog = "visualize.py"
    description = """Draw effective receptive fields, attention gates, and heat maps for detections.
Heat maps of a segmentation model explain boxes, not masks; those of a classification model a class."""

    weights: list[str] = _models([], f"model path(s); {DEFAULT_WEIGHTS} if --cfg is not given either")
    cfg: list[str] = _models([], "model yaml(s), which are drawn untrained")
    blocks: str = _models("", BLOCKS_HELP)
    labels: list[str] = _models([], "names of the models in figures: first of --weights, then of --cfg")
    seed: int = _models(0, "random seed of untrained models", between=(0, None))
    source: str = _models(
        factory=lambda: relative_to_cwd(ROOT / "data" / "images"),
        help="file, folder, glob, list or video",
    )
    vid_stride: int = _models(1, "use every n-th frame of a video", between=(1, None))
    max_images: int = _models(16, "maximum number of images or frames", between=(1, None))

    kind: list[str] = _maps(
        [],
        "erf: effective receptive field; gate: attention; cam: heat maps; default: all that apply",
        choices=("erf", "gate", "cam"),
    )
    layer: list[str] = _maps(
        [],
        "layers for erf and cam: indices, or backbone (default of erf), detect or head (default of cam: "
        "all inputs of the head), p3, p4, ...",
    )
    method: str = _maps("gradcam", "method of heat maps", choices=("gradcam", "eigencam"))

    imgsz: tuple[int, int] = _inference(
        (640, 640),
        "image size (pixels): one side, or height and width; of a classification model that of its training",
        aliases=("--img", "--img-size"),
    )
    conf_thres: float = _inference(0.25, "confidence threshold", between=(0, 1))
    iou_thres: float = _inference(0.45, "NMS IoU threshold", between=(0, 1))
    classes: list[int] | None = _inference(
        None,
        "heat maps only for boxes of these classes; of a classification model for this class",
        between=(0, None),
    )
    device: str = _inference("", "cpu, mps, or a CUDA device such as 0; empty: the best available")

    project: str = _output(
        factory=lambda: runs_folder("visualize"), help="folder that contains the run folders"
    )
    name: str = _output("exp", "name of the run folder, numbered if it exists")
    exist_ok: bool = _output(False, "write into the run folder even if it exists")

    def check(self) -> None:
        """Check that there is a label for each model, or none."""
        models = len(self.checkpoints) + len(self.cfg)
        self.require("labels", len(self.labels) in (0, models), f"as many labels as models, {models}")

    @property
    def checkpoints(self) -> list[str]:
        """Paths of trained models: --weights, or the default if neither --weights nor --cfg is given."""
        return self.weights or ([] if self.cfg else [DEFAULT_WEIGHTS])
