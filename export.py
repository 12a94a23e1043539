"""Export checkpoints to formats that other runtimes read, and verify each file against PyTorch.

    python export.py --weights yolov5s.pt --include torchscript onnx

From Python: `files = export.run(weights="yolov5s.pt", include=["onnx"])`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if "." in __name__:  # `yolov5.export`: the packages are beside this file
    sys.path.append(str(Path(__file__).resolve().parent))

from utils.base import script
from utils.base.log import set_up_console
from utils.base.options import options_from, parse_options
from utils.base.yolov5_names import serve
from utils.export.export_options import ExportOptions

if TYPE_CHECKING:
    from utils.export.export_job import ExportReport


def run(**kwargs: Any) -> list[Path]:
    """Export from Python; by default to TorchScript and ONNX, as in the original.

    Args:
        **kwargs: fields of ExportOptions.

    Returns:
        The files and folders that were written and have passed verification.
    """
    set_up_console()
    options = options_from(ExportOptions, {"include": ("torchscript", "onnx"), **kwargs})
    return [report.file for report in export(options) if not report.error]


def export(options: ExportOptions) -> list[ExportReport]:
    """Export every checkpoint of `--weights` to every format of `--include`.

    Raises:
        ConfigError, DataError: the weights, the device or the calibration dataset cannot be used.
    """
    from models.official_weights import locate_weights
    from utils.export.export_job import Exporter, print_table

    files = [locate_weights(file) for file in options.weights]  # a missing file is reported before the work
    reports = [report for file in files for report in Exporter(file, options).export()]
    print_table(reports, options)
    return reports


def main() -> int:
    """Export from the command line; return 1 if an export failed or its output differs."""
    options = parse_options(ExportOptions)
    script.print_args("export", options)
    return int(any(report.error for report in export(options)))


__getattr__, __dir__, _ = serve("export")  # parse_opt, and what scripts import from here

if __name__ == "__main__":
    script.main(main)
