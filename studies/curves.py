"""Measure what a large kernel costs: parameters, work, time and memory of the four designs over k.

python studies/curves.py                                          # everything, default budget
python studies/curves.py --part module --kernels 7 23 --channels 256 --sizes 20
python studies/curves.py --plot-only runs/studies/curves/curves.csv
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the project's packages stand beside this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies.kernels.cells import CHANNELS, DESIGNS, KERNELS, PARTS, SIZES, find_design
from utils.base.paths import ROOT, check_writable, relative_to_cwd
from utils.base.script import main, parser, print_args


def parse_opt(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    p = parser(__doc__.splitlines()[0], prog="studies/curves.py")
    what = p.add_argument_group("what to measure")
    what.add_argument("--part", nargs="+", choices=PARTS, default=list(PARTS), help="where the block stands")
    what.add_argument("--designs", nargs="+", type=_design, default=list(DESIGNS), help="of the block")
    what.add_argument("--kernels", nargs="+", type=int, default=list(KERNELS), help="sides of the kernels")
    what.add_argument("--channels", nargs="+", type=int, default=list(CHANNELS), help="of the module alone")
    what.add_argument("--sizes", nargs="+", type=int, default=list(SIZES), help="sides of its maps")

    how = p.add_argument_group("how")
    how.add_argument("--budget", type=float, default=2.0, help="seconds for each design and kernel")
    how.add_argument("--batch-size", type=int, default=1, help="inputs at once")
    how.add_argument("--threads", type=int, default=0, help="of the CPU; 0: as torch chooses")
    how.add_argument("--device", default="", help="cpu, mps, or a GPU such as 0; '' takes the best")

    out = p.add_argument_group("what to write, and where")
    project = relative_to_cwd(ROOT / "runs" / "studies")
    out.add_argument("--project", default=project, help="folder of all studies")
    out.add_argument("--name", default="curves", help="folder of this one")
    out.add_argument("--exist-ok", action="store_true", help="write into an existing folder")
    out.add_argument("--plot-only", default="", metavar="CSV", help="measure nothing; draw from this table")
    return p.parse_args(argv)


def _design(text: str) -> str:
    try:
        return find_design(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _run_script() -> None:
    opt = parse_opt()
    from studies.kernels.kernel_study import run  # after the flags, so that --help answers at once

    check_writable(Path(opt.project))
    print_args("curves", opt)
    run(opt)


if __name__ == "__main__":
    main(_run_script)
