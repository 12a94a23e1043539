"""Turn checkpoints into files that other runtimes read, and check each against PyTorch.

    python export.py --weights yolov5s.pt --include torchscript onnx

From Python: `files = export.run(weights="yolov5s.pt", include=["onnx"])`.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.log import set_up_console
from utils.base.script import main, print_args
from utils.export.export_options import options_from, parse_options

if TYPE_CHECKING:
    from utils.export.export_job import ExportReport


def run(**keywords: Any) -> list[Path]:
    """Export from Python: keywords are the flags with underscores; return the files that are right."""
    set_up_console()
    return [report.file for report in export(options_from(keywords)) if not report.error]


def export(opt: Namespace) -> list[ExportReport]:
    """Export every file of `--weights` to every format of `--include`.

    Raises:
        ConfigError, DataError: the weights or the device cannot be used.
    """
    from models.weights import locate_weights
    from utils.export.export_job import export_file, print_table

    files = [locate_weights(file) for file in opt.weights]  # all, before hours of work on the first
    reports = [report for file in files for report in export_file(str(file), opt)]
    print_table(reports)
    return reports


def command_line() -> int:
    """Parse before anything heavy is imported, then export; 1 if an export failed or differs."""
    opt = parse_options()
    print_args("export", opt)
    return int(any(report.error for report in export(opt)))


if __name__ == "__main__":
    main(command_line)
