"""Tables of the kernel study, as csv and as markdown."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from studies.kernels.cases import DESIGNS, Case
from utils.base.errors import ConfigError, DataError
from utils.base.paths import atomic_write


@dataclass(frozen=True)
class CostRow(Case):
    """A case and its measurements."""

    parameters: int
    gmacs: float  # multiply-adds of one input, 1e9
    gflops: float  # two for each multiply-add
    gmacs_with_biases: float  # as the VAN paper counts
    forward_ms: float  # median and quartiles, for a batch
    forward_low_ms: float
    forward_high_ms: float
    step_ms: float
    step_low_ms: float
    step_high_ms: float
    repeats: int
    peak_mib: float
    batch: int
    machine: str
    command: str


_KINDS = {"int": int, "float": float, "str": str}


def write_csv(path: Path, rows: Sequence[CostRow]) -> None:
    """Write all rows atomically."""
    with atomic_write(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(CostRow)])
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()})


def read_csv(path: Path) -> list[CostRow]:
    """Read the rows that `write_csv` wrote.

    Raises:
        ConfigError: the file does not exist.
        DataError: it is not such a table; the message names the column or the line.
    """
    if not path.is_file():
        raise ConfigError(f"--plot-only {path}: no such file; expected a csv of studies/curves.py")
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.DictReader(file)
        missing = [field.name for field in fields(CostRow) if field.name not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: not a table of studies/curves.py (no column {missing[0]})")
        rows = []
        for record in reader:
            try:
                rows.append(CostRow(**{f.name: _KINDS[str(f.type)](record[f.name]) for f in fields(CostRow)}))
            except (TypeError, ValueError) as error:
                raise DataError(f"{path}, line {reader.line_num}: {error}") from error
    if not rows:
        raise DataError(f"{path}: no rows")
    return rows


def groups(rows: Iterable[CostRow]) -> dict[str, list[CostRow]]:
    """Group rows by title, in their order."""
    found: dict[str, list[CostRow]] = {}
    for row in rows:
        found.setdefault(row.title, []).append(row)
    return found


def markdown(rows: Sequence[CostRow]) -> str:
    """Return a table for each group, after an explanation of the columns."""
    first = rows[0]
    lines = [
        "# Kernel curves",
        "",
        f"Made by `{first.command}` on {first.machine}.",
        "",
        "GMACs: multiply-adds of one input, in units of 1e9; a norm counts four per value, biases nothing. "
        "For VAN-Tiny the papers give 0.88 G for LKA, with biases, and 0.839 G for LSKA with k = 23, "
        "without: compare within a column. "
        "GFLOPs: two for each multiply-add, as YOLOv5 counts. "
        f"Times are for a batch of {first.batch}, float32: median, with quartiles in brackets; forward as in "
        "detection, step: forward and backward pass in training. "
        "Peak: maximum memory of a training step, weights and input included.",
    ]
    for title, members in groups(rows).items():
        van = members[0].part == "van"
        extra = "| GMACs with biases, as the VAN paper counts " if van else ""
        lines += [
            "",
            f"## {title}",
            "",
            f"| design | k | parameters | GMACs (multiply-adds) {extra}| GFLOPs (2 x GMACs) | forward, ms "
            "| step, ms | peak, MiB | repeats |",
            "|---|---|---|---|" + "---|" * (5 + van),
            *(_line(row, van) for row in members),
        ]
    return "\n".join(lines) + "\n"


def _line(row: CostRow, van: bool) -> str:
    cells = [DESIGNS.get(row.design, "no attention"), row.k or "", f"{row.parameters:,}", f"{row.gmacs:.4g}"]
    cells += [f"{row.gmacs_with_biases:.4g}"] if van else []
    cells += [
        f"{row.gflops:.4g}",
        _time(row.forward_ms, row.forward_low_ms, row.forward_high_ms),
        _time(row.step_ms, row.step_low_ms, row.step_high_ms),
        f"{row.peak_mib:.1f}",
        row.repeats,
    ]
    return f"| {' | '.join(map(str, cells))} |"


def _time(median: float, low: float, high: float) -> str:
    digits = 3 if median < 1 else 2 if median < 10 else 1 if median < 100 else 0
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
