"""Find objects in images, videos and streams.

    python detect.py --weights yolov5s.pt --source image.jpg   # file, folder, "glob*", list.txt, video
    python detect.py --weights yolov5s.pt --source 0             # camera, rtsp:// address, screen

From Python: `detect.run(weights="yolov5s.pt", source="image.jpg")`.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from utils.base.paths import ROOT, relative_to_cwd, runs_folder
from utils.base.script import main, parser, print_args

if TYPE_CHECKING:
    from utils.predict.detector import DetectSummary


def make_parser() -> argparse.ArgumentParser:
    """All flags, by what they are about."""

    def here(*parts: str) -> str:
        return relative_to_cwd(ROOT.joinpath(*parts))

    p = parser("Find objects in images, videos and streams.", prog="detect.py")
    what = p.add_argument_group("what to look at, and with what")
    what.add_argument("--weights", nargs="+", default=["yolov5s.pt"], help="model file; several vote")
    what.add_argument("--source", default=here("data", "images"), help="file, folder, glob, camera, address")
    what.add_argument("--vid-stride", type=int, default=1, help="use every n-th frame of a video")
    what.add_argument("--data", default=here("data", "coco128.yaml"), help="class names, if a model has none")

    how = p.add_argument_group("how to look")
    how.add_argument("--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640], help="pixels, h w")
    how.add_argument("--batch-size", type=int, default=0, help="images to look at together; 0 chooses")
    how.add_argument("--conf-thres", type=float, default=0.25, help="lowest confidence")
    how.add_argument("--iou-thres", type=float, default=0.45, help="overlap that makes two boxes one")
    how.add_argument("--max-det", type=int, default=1000, help="most boxes per image")
    how.add_argument("--classes", nargs="+", type=int, help="only these class numbers")
    how.add_argument("--agnostic-nms", action="store_true", help="boxes of different classes compete, too")
    how.add_argument("--augment", action="store_true", help="look three times: as is, and smaller (mirrored)")
    how.add_argument("--device", default="", help="cpu, mps, or a GPU's number; empty: the best there is")
    how.add_argument("--runtime", default="", help="providers of ONNX Runtime, or a device of OpenVINO")
    how.add_argument("--half", action="store_true", help="16-bit numbers, on a GPU")
    how.add_argument("--dnn", action="store_true", help="run ONNX files with OpenCV")

    keep = p.add_argument_group("what to keep")
    keep.add_argument("--nosave", action="store_true", help="no images, no videos")
    keep.add_argument("--save-txt", action="store_true", help="labels/*.txt, one line per box")
    keep.add_argument("--save-format", type=int, default=0, help="of labels: 0 centre and size, 1 corners")
    keep.add_argument("--save-conf", action="store_true", help="confidences in labels")
    keep.add_argument("--save-csv", action="store_true", help="predictions.csv, one line per box")
    keep.add_argument("--save-crop", action="store_true", help="crops/CLASS/*.jpg, one per box")
    keep.add_argument("--visualize", action="store_true", help="feature maps of every layer")
    keep.add_argument("--project", default=runs_folder("detect"), help="folder of run folders")
    keep.add_argument("--name", default="exp", help="this run's folder")
    keep.add_argument("--exist-ok", action="store_true", help="write into that folder even if it exists")
    keep.add_argument("--update", action="store_true", help="afterwards, strip the first file of --weights")

    draw = p.add_argument_group("how to draw")
    draw.add_argument("--view-img", action="store_true", help="show the results in a window")
    draw.add_argument("--line-thickness", type=int, default=3, help="of boxes, in pixels")
    draw.add_argument("--hide-labels", action="store_true", help="boxes without words")
    draw.add_argument("--hide-conf", action="store_true", help="words without numbers")
    return p


def run(**kwargs: Any) -> DetectSummary:
    """Detect; keywords are the flags with underscores, and default to what they do there."""
    from utils.predict.detect_options import DetectOptions
    from utils.predict.detector import detect

    return detect(DetectOptions(**{**vars(make_parser().parse_args([])), **kwargs}))


def command_line() -> None:
    """Parse before anything heavy is imported, then run."""
    options = make_parser().parse_args()
    print_args("detect", options)
    run(**vars(options))


if __name__ == "__main__":
    main(command_line)
