"""Options of detect.py: its flags, and the keywords of `detect.run`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from utils.base.options import BLOCKS_HELP, Options, flag
from utils.base.paths import ROOT, relative_to_cwd, runs_folder

_inputs = partial(flag, group="model and source")
_inference = partial(flag, group="inference")
_outputs = partial(flag, group="results to save")
_drawing = partial(flag, group="drawing")


@dataclass(frozen=True)
class DetectOptions(Options):
    """Options of detect.py."""

    prog, description = "detect.py", "Detect objects in images, videos and streams."
    model_task: ClassVar[str] = "detect"

    weights: list[str] = _inputs(["yolov5s.pt"], "model path(s); several .pt files form an ensemble")
    blocks: str = _inputs("", BLOCKS_HELP)
    source: str = _inputs(
        help="file, folder, glob, list (.txt), camera number, URL, list of streams (.streams), or screen",
        factory=lambda: relative_to_cwd(ROOT / "data" / "images"),
    )
    vid_stride: int = _inputs(1, "use every n-th frame of a video or stream", between=(1, None))
    data: str = _inputs(
        help="dataset yaml with class names, for models that contain none",
        factory=lambda: relative_to_cwd(ROOT / "data" / "coco128.yaml"),
    )

    imgsz: tuple[int, int] = _inference(
        (640, 640), "image size (pixels): one side, or height and width", aliases=("--img", "--img-size")
    )
    batch_size: int = _inference(
        0,
        "batch size; 0: automatic",
        between=(0, None),
        expected="an integer of at least 1, or 0 for automatic",
    )
    conf_thres: float = _inference(0.25, "confidence threshold", between=(0, 1))
    iou_thres: float = _inference(0.45, "NMS IoU threshold", between=(0, 1))
    max_det: int = _inference(1000, "maximum detections per image", between=(1, None))
    classes: list[int] | None = _inference(
        None, "detect these class indices only", between=(0, None), expected="class indices of at least 0"
    )
    agnostic_nms: bool = _inference(False, "class-agnostic NMS")
    augment: bool = _inference(False, "test-time augmentation (.pt files only)")
    device: str = _inference("", "cpu, mps, or a CUDA device such as 0; empty: the best available")
    runtime: str = _inference(
        "", "ONNX Runtime's provider(s), OpenVINO's device, or for .pt bf16 and graph (CUDA)"
    )
    half: bool = _inference(False, "FP16 inference (CUDA only)")
    dnn: bool = _inference(False, "run ONNX models with OpenCV DNN")

    nosave: bool = _outputs(False, "write no images and videos")
    save_txt: bool = _outputs(False, "write labels/*.txt, one line per box")
    save_format: int = _outputs(
        0,
        "box format of labels: 0 for xywh (centre, size), 1 for xyxy (corners), both normalized",
        choices=(0, 1),
    )
    save_conf: bool = _outputs(False, "append the confidence to each line of labels/*.txt")
    save_csv: bool = _outputs(False, "write predictions.csv, one line per box")
    save_crop: bool = _outputs(False, "write the crop of each box to crops/CLASS/*.jpg")
    visualize: bool = _outputs(False, "write the feature maps of every layer")
    project: str = _outputs(
        help="folder that contains the run folders", factory=lambda: runs_folder("detect")
    )
    name: str = _outputs("exp", "name of the run folder, numbered if it exists")
    exist_ok: bool = _outputs(False, "write into the run folder even if it exists")
    update: bool = _outputs(
        False,
        "afterwards strip the optimizer from the first file of --weights, unless YOLOv5 has written it",
    )

    view_img: bool = _drawing(False, "show the images with their boxes in a window")
    line_thickness: int = _drawing(
        3, "line width of boxes (pixels); 0: by the size of the image", between=(0, None)
    )
    hide_labels: bool = _drawing(False, "draw boxes without labels")
    hide_conf: bool = _drawing(False, "draw labels without confidences")

    def check(self) -> None:
        """Check that there is a model."""
        self.require("weights", bool(self.weights), "at least one model path")
