"""Export a model to every format, and measure each: size, accuracy, speed.

    python benchmarks.py --weights yolov5n.pt --data coco128.yaml --img 320
    python benchmarks.py --weights best.pt --data my.yaml --hard-fail 0.5   # status 1 below that mAP50-95

From Python: `rows = benchmarks.run(weights="yolov5n.pt", data="coco128.yaml")`.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from typing import TYPE_CHECKING, Any

from utils.base.errors import ConfigError
from utils.base.formats import FORMATS
from utils.base.log import set_up_console
from utils.base.paths import ROOT, relative_to_cwd
from utils.base.script import main, parser, print_args

if TYPE_CHECKING:
    from studies.compare.formats import FormatRow


def make_parser() -> argparse.ArgumentParser:
    """All flags."""
    p = parser("Export a model to every format, and measure each.", prog="benchmarks.py")
    p.add_argument("--weights", default="yolov5s.pt", help="a checkpoint")
    p.add_argument("--data", default=relative_to_cwd(ROOT / "data" / "coco128.yaml"), help="dataset")
    p.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="pixels")
    p.add_argument("--batch-size", type=int, default=1, help="images at a time")
    p.add_argument("--device", default="cpu", help="cpu, or a GPU's number")
    p.add_argument("--include", nargs="+", default=list(FORMATS), help="formats, beside PyTorch's own")
    p.add_argument("--half", action="store_true", help="16-bit floats; formats that have none are left out")
    p.add_argument("--int8", action="store_true", help="8-bit integers too, where a format has them")
    p.add_argument("--test", action="store_true", help="only export, measure nothing")
    p.add_argument("--pt-only", action="store_true", help="measure the checkpoint alone")
    p.add_argument("--hard-fail", nargs="?", const=True, default=False,
                   help="status 1 if a format fails; with a number, if its mAP50-95 is below")  # fmt: skip
    p.add_argument("--csv", default="", help="write the table here, too")
    return p


def run(**keywords: Any) -> list[FormatRow]:
    """Measure from Python: keywords are the flags with underscores."""
    from studies.compare.formats import measure_formats

    set_up_console()
    known = vars(make_parser().parse_args([]))
    if unknown := set(keywords) - set(known):
        raise ConfigError(f"benchmarks.run has no option {min(unknown)}; there are {', '.join(known)}")
    return measure_formats(Namespace(**{**known, **keywords}))


def command_line() -> int:
    """Parse before anything heavy is imported, then measure; 1 if `--hard-fail` says so."""
    opt = make_parser().parse_args()
    print_args("benchmarks", opt)
    from studies.compare.formats import failures

    return int(bool(failures(run(**vars(opt)), opt.hard_fail)))


if __name__ == "__main__":
    main(command_line)
