"""Export a model to every format and compare size, accuracy and speed.

    python benchmarks.py --weights yolov5n.pt --data coco128.yaml --img 320
    python benchmarks.py --weights best.pt --data my.yaml --hard-fail 0.5   # status 1 below that mAP50-95
    python benchmarks.py --weights yolov5n-cls.pt --data cells --img 224    # classification: top-1 and top-5

From Python: `rows = benchmarks.run(weights="yolov5n.pt", data="coco128.yaml")`.
"""

from __future__ import annotations

from argparse import Namespace
from typing import TYPE_CHECKING, Any

from studies.compare.benchmark_options import BenchmarkOptions
from utils.base import script
from utils.base.log import set_up_console
from utils.base.options import options_from, parse_options

if TYPE_CHECKING:
    from studies.compare.formats import FormatRow


def run(**kwargs: Any) -> list[FormatRow]:
    """Export and validate from Python.

    Args:
        **kwargs: fields of BenchmarkOptions.

    Returns:
        A row for PyTorch and one for each format.
    """
    set_up_console()
    options = options_from(BenchmarkOptions, kwargs)
    from studies.compare.formats import compare_formats

    return compare_formats(options)


def main() -> int:
    """Export and validate from the command line; return 1 if `--hard-fail` is not met."""
    options = parse_options(BenchmarkOptions)
    script.print_args("benchmarks", Namespace(**options.as_dict()))
    from studies.compare.formats import compare_formats, failures

    return int(bool(failures(compare_formats(options), options.hard_fail)))


if __name__ == "__main__":
    script.main(main)
