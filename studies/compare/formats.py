"""One model in every format: how large, how right, how fast; each is measured by a process of its own."""

from __future__ import annotations

import csv
import math
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from models.weights import locate_weights
from utils.base.device import select_device
from utils.base.errors import ConfigError, DataError
from utils.base.formats import FORMATS, format_of, known_format, size_of
from utils.base.log import LOG
from utils.base.paths import check_writable
from utils.base.processes import answer, ask
from utils.data.dataset_yaml import read_data_yaml
from utils.export.export_job import ExportReport, export_file
from utils.export.export_options import has, options_from
from utils.export.verify import can_run
from utils.val.measure import measure
from utils.val.val_options import options_from as val_options_from


@dataclass(frozen=True)
class FormatRow:
    """What is known of one format; None is not measured."""

    format: str
    file: str = ""
    megabytes: float | None = None
    difference: float | None = None  # to PyTorch, of the export
    map50: float | None = None
    map: float | None = None
    milliseconds: float | None = None  # of inference, an image
    note: str = ""
    failed: bool = False


_COLUMNS = (  # field, head, width, kind of number
    ("megabytes", "Size (MB)", 11, ".1f"),
    ("difference", "Difference", 12, ".1e"),
    ("map50", "mAP50", 9, ".4f"),
    ("map", "mAP50-95", 10, ".4f"),
    ("milliseconds", "Inference time (ms)", 21, ".1f"),
)


def measure_formats(opt: Namespace) -> list[FormatRow]:
    """Export and measure as the flags of benchmarks.py say; print the table.

    Raises:
        ConfigError, DataError: weights or data cannot be used.
    """
    opt = _checked(opt)
    weights = locate_weights(opt.weights)
    device = select_device(opt.device, verbose=False)
    rounds = [] if opt.pt_only else _rounds(opt, device.type)  # at once: mistakes are told before the work
    if not opt.test:
        read_data_yaml(opt.data)
    rows = [_measured(FormatRow("PyTorch", str(weights)), opt)]
    for flags in rounds:
        rows += [_measured(_row(report, flags), opt) for report in export_file(str(weights), flags)]
    print_table(rows, test=opt.test)
    if opt.csv:
        write_table(rows, Path(opt.csv))
    return rows


def failures(rows: Sequence[FormatRow], hard_fail: bool | str | float) -> list[FormatRow]:
    """The rows that make `--hard-fail` fail: those without a figure, and those below its number."""
    if hard_fail is False:
        return []
    least = _least(hard_fail)
    wrong = [row for row in rows if row.failed or (row.map is not None and row.map < least)]
    for row in wrong:
        LOG.error(f"{row.format}: {row.note or f'mAP50-95 {row.map:.3f} is below {least}'}")
    return wrong


def print_table(rows: Sequence[FormatRow], test: bool) -> None:
    """Print a line a format."""
    LOG.info(f"\n{'Format':24}{''.join(f'{head:>{width}}' for _, head, width, _ in _COLUMNS)}")
    for row in rows:
        values = ((getattr(row, name), width, kind) for name, _, width, kind in _COLUMNS)
        cells = (" " * width if value is None else f"{value:{width}{kind}}" for value, width, kind in values)
        LOG.info(f"{row.format:24}{''.join(cells)}  {row.note}".rstrip())
    if test:
        LOG.info("Nothing was measured (--test).")


def write_table(rows: Sequence[FormatRow], file: Path) -> None:
    """Write all fields of all rows as csv."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="", encoding="utf-8") as out:
        table = csv.DictWriter(out, [item.name for item in fields(FormatRow)])
        table.writeheader()
        table.writerows(asdict(row) for row in rows)


def _is_for(name: str, device: str) -> bool:
    kind = FORMATS[name]
    return kind.gpu if device == "cuda" else kind.cpu


def _checked(opt: Namespace) -> Namespace:
    include = [opt.include] if isinstance(opt.include, str) else opt.include
    include = list(dict.fromkeys(known_format(name).name for name in include))
    _least(opt.hard_fail)
    if opt.csv:
        check_writable(Path(opt.csv).parent, "--csv")
    return Namespace(**{**vars(opt), "include": include})


def _least(hard_fail: bool | str | float) -> float:
    try:
        least = float(hard_fail)
    except ValueError:
        least = math.nan
    if isinstance(hard_fail, bool):
        return 0.0
    if not 0 <= least <= 1:
        raise ConfigError(f"--hard-fail {hard_fail}: a number from 0 to 1, or nothing, is needed")
    return least


def _rounds(opt: Namespace, device: str) -> list[Namespace]:
    """Flags of export.py for all formats in 32 or 16 bits, then for those that have 8 bits."""
    names = [name for name in opt.include if _is_for(name, device)]
    shared = {key: getattr(opt, key) for key in ("imgsz", "batch_size", "device", "data")}
    if opt.half:
        names = [name for name in names if has(name, "half") and (device == "cuda" or name != "torchscript")]
    rounds = [options_from({**shared, "half": opt.half, "include": names})] if names else []
    small = [name for name in names if "int8" in FORMATS[name].endings] if opt.int8 else []
    return rounds + ([options_from({**shared, "int8": True, "include": small})] if small else [])


def _row(report: ExportReport, flags: Namespace) -> FormatRow:
    precision = " int8" if flags.int8 else " half" if flags.half else ""
    title = f"{FORMATS[report.format].title}{precision}"
    if report.error:
        return FormatRow(title, note=report.error, failed=True)
    return FormatRow(title, str(report.file), difference=report.difference, note=report.note)


def _measured(row: FormatRow, opt: Namespace) -> FormatRow:
    """The row with size, accuracy and time."""
    if row.failed:
        return row
    row = replace(row, megabytes=size_of(Path(row.file)) / 1e6)
    if opt.test or not can_run(format_of(row.file)):
        return row
    LOG.info(f"{row.format}: measuring {row.file}")
    told = {key: getattr(opt, key) for key in ("data", "imgsz", "batch_size", "device", "half")}
    try:
        found = ask("studies.compare.formats", {**told, "weights": row.file}, quiet=True)
    except DataError as error:
        return replace(row, note=f"validation {error}", failed=True)
    return replace(row, **found)


def figures(task: dict[str, Any]) -> dict[str, Any]:
    """mAP, and milliseconds an image, on squares for every format (the task `speed`)."""
    result = measure(val_options_from({**task, "task": "speed", "workers": 0}))
    return {"map50": result.map50, "map": result.map, "milliseconds": result.speeds[1]}


if __name__ == "__main__":
    answer(figures)
