"""Compare models honestly: several seeds, paired differences, and words that say what the numbers allow.

    python compare.py --cfg yolov5n.yaml yolov5n-LSKA.yaml --weights yolov5n.pt --data bccd.yaml \\
        --seeds 0 1 2 3 4 --epochs 40 --img 320          # train, measure, report
    python compare.py --weights a.pt b.pt --data bccd.yaml    # what is trained already, paired over images
    python compare.py --report runs/compare/exp               # the report again, from its csv files
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.compare.compare_options import parse_compare, read_comparison, read_val_options
from utils.base import script
from utils.base.log import LOG, color
from utils.base.paths import check_writable, increment_path, relative_to_cwd, typed

if TYPE_CHECKING:
    from studies.compare.examples import Example
    from studies.compare.records import Records
    from studies.compare.runner import Worker


def compare_seeds(opt: Namespace, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Train what is missing, then report.

    Returns:
        The folder of the report.
    """
    from studies.compare import report, run_plan, runner
    from utils.base.device import select_device

    comparison = read_comparison(opt, rest)
    if not opt.ray:  # a cluster has its own devices
        for name in opt.device.split(","):
            select_device(name, verbose=False)
    project = Path(opt.project)
    runs = run_plan.plan_runs(comparison)
    runner.train_all(runs, project, lambda: _workers(opt, project), opt.jobs)
    records = report.gather(runs, project)
    device = opt.device.split(",")[0]
    weights = report.first_weights(runs, project)
    if opt.rounds:
        report.add_latency(records, runs, project, device, opt.rounds)
    trained = Namespace(**{**vars(comparison.variants[0].options), "device": device})
    return _finish(opt, argv, records, _examples(opt, trained, weights, records.splits()[0]))


def _workers(opt: Namespace, project: Path) -> Worker:
    """Who trains the runs: processes here, or on a cluster."""
    if opt.ray:
        from studies.compare.cluster import ClusterRunner

        return ClusterRunner(project, opt.ray, opt.jobs, opt.device, opt.threads)
    from studies.compare.runner import Runner
    from utils.base.processes import share_out

    return Runner(project, share_out(opt.jobs, opt.device, opt.threads))


def compare_weights(opt: Namespace, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Measure files, compare them image by image, and report.

    Returns:
        The folder of the report.
    """
    from studies.compare import files

    val = read_val_options(opt, rest)
    records = files.compare_files(opt, val)
    weights = dict(zip(records.models, map(Path, val.weights), strict=True))
    return _finish(opt, argv, records, _examples(opt, val, weights, records.splits()[0]))


def remake(opt: Namespace) -> Path:
    """Make the report of a folder again, from its csv files."""
    from studies.compare import examples, records, report

    folder = Path(opt.report)
    report.write_report(records.read_records(folder), folder, examples.read_gallery(folder), opt.resamples)
    return folder


def _examples(opt: Namespace, how: Any, weights: dict[str, Path], split: str) -> tuple[Example, ...]:
    """Images for the page; `how` holds the options of train.py or val.py."""
    if not opt.examples:
        return ()
    from studies.compare.examples import Split, find_examples
    from utils.data.dataset_yaml import read_data_yaml

    images = Split(read_data_yaml(how.data), split, how.imgsz, how.single_cls, how.device)
    return tuple(find_examples(weights, images, opt.examples))


def _finish(opt: Namespace, argv: Sequence[str], records: Records, examples: tuple[Example, ...]) -> Path:
    """Write the report into a folder of its own."""
    from studies.compare.examples import Gallery
    from studies.compare.report import write_report

    folder = increment_path(Path(opt.project) / opt.name, opt.exist_ok)
    write_report(records, folder, Gallery((*typed("compare.py").split(), *argv), examples), opt.resamples)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    given = list(sys.argv[1:] if argv is None else argv)
    opt, rest = parse_compare(given)
    check_writable(*((Path(opt.report), "--report") if opt.report else (Path(opt.project), "--project")))
    if opt.report:
        folder = remake(opt)
    else:
        folder = (compare_seeds if opt.cfg else compare_weights)(opt, rest, given)
    LOG.info((folder / "report.md").read_text(encoding="utf-8"))
    LOG.info(f"Results saved to {color(relative_to_cwd(folder), 'bold')}")


if __name__ == "__main__":
    script.main(main)
