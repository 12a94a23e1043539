"""Answer detection requests over HTTP: `python -m serve --weights yolov5s.pt yolov5s-LSKA.pt`."""

from __future__ import annotations

import argparse
import os

from utils.base import script
from utils.base.paths import ROOT, relative_to_cwd


def make_parser() -> argparse.ArgumentParser:
    """All flags, by what they are about."""
    p = script.parser("Find objects in images that are sent over HTTP.", prog="-m serve")
    what = p.add_argument_group("what to serve, and where")
    what.add_argument("--weights", nargs="+", default=["yolov5s.pt"], help="model files, served side by side")
    what.add_argument(
        "--data", default=relative_to_cwd(ROOT / "data" / "coco128.yaml"), help="spare class names"
    )
    what.add_argument(
        "--host", default="127.0.0.1", help="address to listen at; 0.0.0.0 is the whole network"
    )
    what.add_argument("--port", type=int, default=5000, help="to listen at; 0 takes any that is free")
    what.add_argument("--device", default="", help="cpu, mps, or a GPU's number; empty: the best there is")
    what.add_argument("--half", action="store_true", help="16-bit numbers, on a GPU")

    how = p.add_argument_group("how to look, where a request does not say")
    how.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="longer side in pixels")
    how.add_argument("--conf-thres", type=float, default=0.25, help="lowest confidence")
    how.add_argument("--iou-thres", type=float, default=0.45, help="overlap that makes two boxes one")
    how.add_argument("--max-det", type=int, default=300, help="most boxes per image")

    load = p.add_argument_group("how much to take on")
    load.add_argument("--max-upload-mb", type=float, default=16, help="largest upload")
    load.add_argument("--max-megapixels", type=float, default=50, help="largest image")
    load.add_argument("--max-batch", type=int, default=8, help="most images to look at together")
    load.add_argument("--max-wait-ms", type=float, default=5, help="wait for others to look at together")
    load.add_argument("--max-queue", type=int, default=32, help="most requests of a model under way")
    return p


def command_line() -> None:
    """Parse before anything heavy is imported, then serve until told to stop."""
    flags = make_parser().parse_args()

    from serve.serve_options import ServeOptions

    options = ServeOptions(**vars(flags))
    # OpenCV reads this once, when it is imported: a second fence behind the look at each header.
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(options.max_pixels))

    from serve.server import serve

    serve(options, api_key=os.environ.get("API_KEY", ""))


if __name__ == "__main__":
    script.main(command_line)
