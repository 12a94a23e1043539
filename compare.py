"""Compare models honestly: several seeds, paired differences, and words that say what the numbers allow.

    python compare.py --cfg yolov5n.yaml yolov5n-LSKA.yaml --weights yolov5n.pt --data bccd.yaml \\
        --seeds 0 1 2 3 4 --epochs 40 --img 320          # train, measure, report
    python compare.py --weights a.pt b.pt --data bccd.yaml    # what is trained already, paired over pictures
    python compare.py --report runs/compare/exp               # the report anew, from its csv files
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from utils.base import script
from utils.base.log import LOG, color
from utils.base.paths import increment_path, relative_to_cwd
from utils.compare.options import parse_compare, read_comparison, read_val_options


def compare_seeds(opt: Namespace, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Train what is missing, then report.

    Returns:
        The folder of the report.
    """
    from utils.compare import plan, report, runner

    comparison = read_comparison(opt, rest)
    project = Path(opt.project)
    runs = plan.plan_runs(comparison)
    work = runner.Runner(project, runner.share_out(opt.jobs, opt.device, opt.threads))
    runner.train_all(runs, project, work, opt.jobs)
    records = report.gather(runs, project)
    if opt.rounds:
        report.add_latency(records, runs, project, opt.device.split(",")[0], opt.rounds)
    folder = increment_path(project / opt.name, opt.exist_ok)
    report.write_report(records, folder, report.command_line(argv), opt.resamples)
    return folder


def compare_weights(opt: Namespace, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Measure files, compare them picture by picture, and report.

    Returns:
        The folder of the report.
    """
    from utils.compare import files, report

    records = files.compare_files(opt, read_val_options(opt, rest))
    folder = increment_path(Path(opt.project) / opt.name, opt.exist_ok)
    report.write_report(records, folder, report.command_line(argv), opt.resamples)
    return folder


def remake(opt: Namespace) -> Path:
    """Make the report of a folder anew, from its csv files."""
    from utils.compare import records, report

    folder = Path(opt.report)
    report.write_report(records.read_records(folder), folder, (), opt.resamples)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    given = list(sys.argv[1:] if argv is None else argv)
    opt, rest = parse_compare(given)
    if opt.report:
        folder = remake(opt)
    else:
        folder = (compare_seeds if opt.cfg else compare_weights)(opt, rest, given)
    LOG.info((folder / "report.md").read_text(encoding="utf-8"))
    LOG.info(f"Results saved to {color(relative_to_cwd(folder), 'bold')}")


if __name__ == "__main__":
    script.main(main)
