"""Show what models see: receptive fields, attention gates, heat maps for detections.

    python visualize.py --weights yolov5n.pt best.pt --source data/images   # side by side
    python visualize.py --weights best.pt --cfg yolov5n-LSKA.yaml           # after and before training

From Python: `visualize.run(weights=["a.pt", "b.pt"], source="images/")`. See docs/visualize.md.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from utils.base.paths import ROOT, relative_to_cwd, runs_folder
from utils.base.script import main, parser, print_args

if TYPE_CHECKING:
    from studies.explain.visualizers import VisualizeSummary


def make_parser() -> argparse.ArgumentParser:
    """All flags, by what they are about."""

    def here(*parts: str) -> str:
        return relative_to_cwd(ROOT.joinpath(*parts))

    p = parser("Show what models see.", prog="visualize.py")
    who = p.add_argument_group("which models, on which images")
    who.add_argument("--weights", nargs="+", help="checkpoints; without --cfg, yolov5s.pt if left out")
    who.add_argument("--cfg", nargs="+", help="model yamls, shown untrained")
    who.add_argument("--labels", nargs="+", help="names for the figures: of --weights, then of --cfg")
    who.add_argument("--seed", type=int, default=0, help="of the untrained models")
    who.add_argument("--source", default=here("data", "images"), help="file, folder, glob, list or video")
    who.add_argument("--vid-stride", type=int, default=1, help="use every n-th frame of a video")
    who.add_argument("--max-images", type=int, default=16, help="at most so many images or frames")

    what = p.add_argument_group("what to show")
    kinds = "erf: effective receptive field; gate: attention; cam: heat maps; default: all that apply"
    what.add_argument("--kind", nargs="+", choices=("erf", "gate", "cam"), help=kinds)
    places = "numbers, or backbone (erf's default), detect (cam's default: all inputs of Detect), p3, p4, ..."
    what.add_argument("--layer", nargs="+", help=f"layers for erf and cam: {places}")
    what.add_argument("--method", choices=("gradcam", "eigencam"), default="gradcam", help="of heat maps")

    how = p.add_argument_group("how to look")
    how.add_argument("--imgsz", "--img", "--img-size", nargs="+", type=int, default=[640], help="pixels, h w")
    how.add_argument("--conf-thres", type=float, default=0.25, help="lowest confidence of boxes")
    how.add_argument("--iou-thres", type=float, default=0.45, help="overlap that makes two boxes one")
    how.add_argument("--classes", nargs="+", type=int, help="heat maps for boxes of these class numbers only")
    how.add_argument("--device", default="", help="cpu, mps, or a GPU's number; empty: the best there is")

    keep = p.add_argument_group("where to write")
    keep.add_argument("--project", default=runs_folder("visualize"), help="folder of run folders")
    keep.add_argument("--name", default="exp", help="this run's folder")
    keep.add_argument("--exist-ok", action="store_true", help="write into that folder even if it exists")
    return p


def run(**kwargs: Any) -> VisualizeSummary:
    """Draw; keywords are the flags with underscores, and default to what they do there."""
    from studies.explain.visualize import visualize
    from studies.explain.visualize_options import VisualizeOptions

    return visualize(VisualizeOptions(**{**vars(make_parser().parse_args([])), **kwargs}))


def command_line() -> None:
    """Parse before anything heavy is imported, then run."""
    options = make_parser().parse_args()
    print_args("visualize", options)
    run(**vars(options))


if __name__ == "__main__":
    main(command_line)
