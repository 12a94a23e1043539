"""Compare models: several seeds, paired differences, and conclusions that the numbers support.

    python compare.py --cfg yolov5n.yaml yolov5n-LSKA.yaml --weights yolov5n.pt --data bccd.yaml \\
        --seeds 0 1 2 3 4 --epochs 40 --img 320          # train, measure, report
    python compare.py --weights a.pt b.pt --data bccd.yaml    # trained models, paired by image
    python compare.py --weights a-seg.pt b-seg.pt --data nuclei.yaml    # segmentation: masks, then boxes
    python compare.py --weights a-cls.pt b-cls.pt --data cells    # classification: top-1 and top-5
    python compare.py --predictions a.json b.json --data bccd.yaml    # COCO results files of any framework
    python compare.py --report runs/compare/exp               # write a report again, from its csv files
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from studies.compare.compare_options import (
    CompareOptions,
    parse_command,
    read_comparison,
    read_val_options,
)
from utils.base import script
from utils.base.log import LOG, color
from utils.base.options import changed
from utils.base.paths import check_writable, claim_folder, command_for, relative_to_cwd

if TYPE_CHECKING:
    from studies.compare.examples import Example
    from studies.compare.records import Records
    from utils.train.train_options import TrainOptions
    from utils.val.val_options import ValOptions


def compare_seeds(options: CompareOptions, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Train the missing runs, and write a report; return its folder."""
    from studies.compare import report, run_plan
    from studies.jobs.pool import make_runner
    from utils.base.device import select_device

    comparison = read_comparison(options, rest)
    if not options.ray:  # a cluster has devices of its own
        for name in options.device.split(","):
            select_device(name, verbose=False)
    project = Path(options.project)
    planned = run_plan.plan_runs(comparison)
    run_plan.check_metric(options.metric, planned)
    run_plan.train_all(
        planned,
        project,
        lambda: make_runner(project, options.jobs, options.device, options.threads, options.ray),
    )
    records = report.gather(planned, project)
    records.chosen = options.metric
    weights = report.first_weights(planned, project)
    trained = changed(comparison.variants[0].options, device=options.first_device)
    if comparison.folds:  # the first run has not been trained on the images of its own fold
        trained = changed(trained, data=planned[0].data)
    if options.rounds:
        from studies.compare.measure import measure_latency

        files = list(weights.values())
        records.add_latency(measure_latency(files, trained.imgsz, options.first_device, options.rounds))
    examples = _examples(options, trained, weights, records.splits()[0])
    return _write(options, argv, records, examples)


def compare_weights(options: CompareOptions, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Measure weight files, compare them image by image, and write a report; return its folder."""
    from studies.compare.measure import measure_files

    val = read_val_options(options, rest)
    records = measure_files(options, val)
    records.chosen = options.metric
    weights = dict(zip(records.models, map(Path, val.weights), strict=True))
    return _write(options, argv, records, _examples(options, val, weights, records.splits()[0]))


def compare_predictions(options: CompareOptions, rest: Sequence[str], argv: Sequence[str]) -> Path:
    """Measure COCO results files, compare them image by image, and write a report; return its folder."""
    from studies.compare import prediction_files as files
    from studies.compare.examples import Split, examples_of_findings
    from studies.compare.measure import labels_of, records_of_files
    from utils.data.dataset_yaml import read_data_yaml

    val = read_val_options(options, rest)
    labels = labels_of(options, options.predictions)
    data = read_data_yaml(val.data, allow_download=val.download)
    truth = files.load_truth(data, val)
    found = [files.read_predictions(Path(file), truth) for file in options.predictions]
    results = [files.measure_predictions(one, truth, val) for one in found]
    by_label = dict(zip(labels, options.predictions, strict=True))
    records = records_of_files(by_label, results, val, options.resamples)
    records.chosen = options.metric
    split = Split(data, records.splits()[0], val.imgsz, val.single_cls, val.device)
    examples: list[Example] = []
    if options.examples:
        findings = {label: partial(files.objects_of, one) for label, one in zip(labels, found, strict=True)}
        examples = examples_of_findings(findings, split, options.examples)
    return _write(options, argv, records, tuple(examples))


def rewrite_report(options: CompareOptions) -> Path:
    """Write the report in a folder again from its csv files; return the folder."""
    from studies.compare import examples, records, report

    assert options.report
    folder = Path(options.report)
    gallery = examples.read_gallery(folder)
    found = records.read_records(folder)
    found.metric_set.check_metric(options.metric, found.classes)
    found.chosen = options.metric
    report.write_report(found, folder, gallery, options.resamples)
    return folder


def _examples(
    options: CompareOptions, data_options: TrainOptions | ValOptions, weights: dict[str, Path], split: str
) -> tuple[Example, ...]:
    """Choose example images; `data_options` has the dataset, image size and device."""
    if not options.examples:
        return ()
    from studies.compare.examples import Split, find_examples
    from utils.tasks.task import get_task

    task = data_options.model_task
    data = get_task(task).read_val_data(data_options)
    images = Split(data, split, data_options.imgsz, data_options.single_cls, data_options.device, task)
    return tuple(find_examples(weights, images, options.examples))


def _write(
    options: CompareOptions, argv: Sequence[str], records: Records, examples: tuple[Example, ...]
) -> Path:
    """Write the report into a new folder, and return the folder."""
    from studies.compare.examples import Gallery
    from studies.compare.report import write_report

    folder = claim_folder(Path(options.project) / options.name, options.exist_ok)
    gallery = Gallery((*command_for("compare.py").split(), *argv), examples)
    write_report(records, folder, gallery, options.resamples)
    return folder


def main(argv: Sequence[str] | None = None) -> None:
    """Compare as the command line says."""
    argv = list(sys.argv[1:] if argv is None else argv)
    options, rest = parse_command(argv)
    if options.report:
        check_writable(Path(options.report), "--report")
        folder = rewrite_report(options)
    else:
        check_writable(Path(options.project), "--project")
        compare = compare_seeds if options.cfg else compare_weights
        folder = (compare_predictions if options.predictions else compare)(options, rest, argv)
    LOG.info((folder / "report.md").read_text(encoding="utf-8"))
    LOG.info(f"Results saved to {color(relative_to_cwd(folder), 'bold')}")


if __name__ == "__main__":
    script.main(main)
