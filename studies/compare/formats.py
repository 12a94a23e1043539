"""Export a model to every format and compare size, accuracy and speed; each is validated in a subprocess."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from models.official_weights import locate_weights
from models.weights import read_checkpoint
from studies.compare.benchmark_options import BenchmarkOptions
from studies.compare.evaluation import results_by_part
from studies.model_tasks import task_of_file
from utils.base.device import select_device
from utils.base.errors import DataError
from utils.base.formats import FORMATS, format_of, size_of
from utils.base.log import LOG
from utils.base.options import changed, options_from
from utils.base.paths import check_writable
from utils.base.processes import run_in_subprocess, subprocess_main
from utils.export.export_job import Exporter, ExportReport
from utils.export.export_options import ExportOptions, supports
from utils.export.verify import can_run
from utils.tasks.task import Task, get_task
from utils.val.measure import measure
from utils.val.val_options import options_from as val_options_from


@dataclass(frozen=True)
class FormatRow:
    """Results of one format; None is not measured."""

    format: str
    file: str = ""
    megabytes: float | None = None
    difference: float | None = None  # largest difference of the output from PyTorch's
    map50: float | None = None  # of the masks of a segmentation model
    map: float | None = None
    box_map: float | None = None  # mAP50-95 of the boxes of a segmentation model
    top1: float | None = None  # of a classification model
    top5: float | None = None
    milliseconds: float | None = None  # inference time per image
    note: str = ""
    failed: bool = False

    @property
    def accuracy(self) -> float | None:
        """What --hard-fail is about: mAP50-95 or top-1."""
        return self.map if self.top1 is None else self.top1


_METRICS = {
    "detect": ("map50", "map"),
    "segment": ("map50", "map", "box_map"),
    "classify": ("top1", "top5"),
}
_COLUMNS = (  # field, heading, width, number format
    ("megabytes", "Size (MB)", 11, ".1f"),
    ("difference", "Difference", 12, ".1e"),
    ("map50", "mAP50", 9, ".4f"),
    ("map", "mAP50-95", 10, ".4f"),
    ("box_map", "Box mAP50-95", 14, ".4f"),
    ("top1", "Top-1", 9, ".4f"),
    ("top5", "Top-5", 9, ".4f"),
    ("milliseconds", "Inference time (ms)", 21, ".1f"),
)


def compare_formats(options: BenchmarkOptions) -> list[FormatRow]:
    """Export and validate a model in every format, and print the table.

    Raises:
        ConfigError, DataError: the weights or the dataset cannot be used.
    """
    if options.csv:
        check_writable(Path(options.csv).parent, "--csv")
    weights = locate_weights(options.weights)
    task = get_task(task_of_file(str(weights)))
    defaults = task.val_options()()
    found = {"data": defaults.data, "imgsz": task.size_for(read_checkpoint(weights).imgsz)}
    options = changed(options, **{name: value for name, value in found.items() if name not in options.given})
    device = select_device(options.device, verbose=False)
    exports = [] if options.pt_only else _exports(options, device.type)
    if not options.test:
        task.read_val_data(changed(defaults, data=options.data))  # errors are reported before the work
    rows = [_validate(FormatRow("PyTorch", str(weights)), options, task)]
    for export in exports:
        reports = Exporter(weights, export).export()
        rows += [_validate(_row(report, export), options, task) for report in reports]
    print_table(rows, task.name, test=options.test)
    if options.csv:
        write_table(rows, Path(options.csv))
    return rows


def failures(rows: Sequence[FormatRow], hard_fail: bool | float) -> list[FormatRow]:
    """Return and log the rows that `--hard-fail` does not accept: failed, or less accurate."""
    if hard_fail is False:
        return []
    minimum = 0.0 if hard_fail is True else hard_fail
    failed = [row for row in rows if row.failed or (row.accuracy is not None and row.accuracy < minimum)]
    for row in failed:
        metric = "mAP50-95" if row.top1 is None else "top-1"
        LOG.error(f"{row.format}: {row.note or f'{metric} {row.accuracy:.3f} is below {minimum}'}")
    return failed


def print_table(rows: Sequence[FormatRow], task: str, test: bool) -> None:
    """Print a line for each format, with the metrics of a task; mAP of a segmentation model is of masks."""
    metrics = {name for names in _METRICS.values() for name in names} - {*_METRICS[task]}
    columns = [column for column in _COLUMNS if column[0] not in metrics]
    LOG.info(f"\n{'Format':24}{''.join(f'{heading:>{width}}' for _, heading, width, _ in columns)}")
    for row in rows:
        values = ((getattr(row, name), width, spec) for name, _, width, spec in columns)
        cells = (" " * width if value is None else f"{value:{width}{spec}}" for value, width, spec in values)
        LOG.info(f"{row.format:24}{''.join(cells)}  {row.note}".rstrip())
    if any(row.box_map is not None for row in rows):
        LOG.info("mAP50 and mAP50-95 are those of the masks.")
    if test:
        LOG.info("Nothing was validated (--test).")


def write_table(rows: Sequence[FormatRow], file: Path) -> None:
    """Write all fields of all rows as csv."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, [item.name for item in fields(FormatRow)])
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


def _exports(options: BenchmarkOptions, device: str) -> list[ExportOptions]:
    """Return the options of export.py for all formats in FP32 or FP16, then for those with INT8."""
    names = [name for name in options.include if _runs_on(name, device)]
    shared = {key: getattr(options, key) for key in ("imgsz", "batch_size", "device", "data")}
    if options.half:
        names = [
            name for name in names if supports(name, "half") and (device == "cuda" or name != "torchscript")
        ]
    exports = [{"include": names, "half": options.half}]
    if options.int8:
        exports.append({"include": [name for name in names if "int8" in FORMATS[name].endings], "int8": True})
    return [options_from(ExportOptions, {**shared, **export}) for export in exports if export["include"]]


def _runs_on(name: str, device: str) -> bool:
    kind = FORMATS[name]
    return kind.gpu if device == "cuda" else kind.cpu


def _row(report: ExportReport, export: ExportOptions) -> FormatRow:
    precision = " int8" if export.int8 else " half" if export.half else ""
    title = f"{FORMATS[report.format].title}{precision}"
    if report.error:
        return FormatRow(title, note=report.error, failed=True)
    return FormatRow(title, str(report.file), difference=report.difference, note=report.note)


def _validate(row: FormatRow, options: BenchmarkOptions, task: Task) -> FormatRow:
    """Return the row with size, accuracy and time."""
    if row.failed:
        return row
    row = replace(row, megabytes=size_of(Path(row.file)) / 1e6)
    if options.test or not can_run(format_of(row.file)):
        return row
    LOG.info(f"{row.format}: validating {row.file}")
    what = {key: getattr(options, key) for key in ("data", "imgsz", "batch_size", "device", "half")}
    what |= {"weights": row.file, "model_task": task.name}
    try:
        result = run_in_subprocess("studies.compare.formats", what, quiet=True)
    except DataError as error:
        return replace(row, note=f"validation {error}", failed=True)
    return replace(row, **result)


def _validate_in_this_process(what: dict[str, Any]) -> dict[str, Any]:
    """Return the metrics and milliseconds per image, on square images for every format (`--task speed`)."""
    options = get_task(what.pop("model_task")).val_options()
    result = measure(val_options_from({**what, "task": "speed", "workers": 0}, options))
    return accuracy_of(result) | {"milliseconds": result.speeds[1]}


def accuracy_of(result: Any) -> dict[str, float]:
    """Return the metrics of a validation as fields of `FormatRow`."""
    if hasattr(result, "top1"):
        return {"top1": result.top1, "top5": result.top5}
    main, *others = results_by_part(result).values()
    return {"map50": main.map50, "map": main.map, **({"box_map": others[0].map} if others else {})}


if __name__ == "__main__":
    subprocess_main(_validate_in_this_process)
