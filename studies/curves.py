"""Measure the cost of large kernels: parameters, multiply-adds, time and memory of the four designs over k.

python studies/curves.py                                          # everything, default budget
python studies/curves.py --part module --kernels 7 23 --channels 256 --sizes 20
python studies/curves.py --plot-only runs/studies/curves/curves.csv
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # the packages of the project are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies.kernels.cases import CurvesOptions
from utils.base import script
from utils.base.options import parse_options
from utils.base.paths import check_writable


def main() -> None:
    """Run the study as the command line says."""
    options = parse_options(CurvesOptions)
    from studies.kernels.measure_cost import run  # heavy, so that --help is fast

    check_writable(Path(options.project))
    script.print_args("curves", options)
    run(options)


if __name__ == "__main__":
    script.main(main)
