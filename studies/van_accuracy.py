"""Measure the accuracy of VAN-Tiny over kernel sizes for the four designs of attention, with intervals.

python studies/van_accuracy.py                                    # 60 trainings on drawn images
python studies/van_accuracy.py --data cells --per-class 10 --epochs 20
python studies/van_accuracy.py --plot-only                        # the table and plot of what is measured

Results are in accuracy.csv: a second call continues where the first one ended.
"""

from __future__ import annotations

import sys
from pathlib import Path

if __name__ == "__main__":  # the packages of the project are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies.kernels.accuracy_options import AccuracyOptions
from utils.base import script
from utils.base.options import parse_options
from utils.base.paths import check_writable


def main() -> None:
    """Run the study as the command line says."""
    options = parse_options(AccuracyOptions)
    from studies.kernels.accuracy import run  # heavy, so that --help is fast

    check_writable(Path(options.project))
    script.print_args("van_accuracy", options)
    run(options)


if __name__ == "__main__":
    script.main(main)
