"""Write the tables of docs/results.md from the csv files in docs/results.

python studies/results.py            # write them
python studies/results.py --check    # only check whether they are up to date
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the packages of the project are in the parent folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from studies.effects import collect, draw, read_study, table
from utils.base import script
from utils.base.errors import DataError, YoloError
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write, relative_to_cwd
from utils.base.script import parser

PAGE = ROOT / "docs" / "results.md"
FIGURE = "effects.png"  # of all studies, in the folder of the csv files

# Tables are between `<!-- table: FOLDER SPLIT -->` and `<!-- end -->`. After the split: `classes`, `sizes` or
# `errors` for a breakdown, `short` for a table without conclusions.
_TABLE = re.compile(
    r"(<!-- table: (\S+) (\S+)(?: (classes|sizes|errors|short))? -->\n).*?(<!-- end -->)", re.DOTALL
)

# The differences of all studies with enough seeds are between `<!-- effects -->` and `<!-- end -->`.
_EFFECTS = re.compile(r"(<!-- effects -->\n).*?(<!-- end -->)", re.DOTALL)

# Results of visualize.py are between `<!-- seen: FOLDER -->` and `<!-- end -->`.
_SEEN = re.compile(r"(<!-- seen: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

# Results of van_accuracy.py are between `<!-- accuracy: FOLDER -->` and `<!-- end -->`.
_ACCURACY = re.compile(r"(<!-- accuracy: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

# A row for each model, with the metrics of all seeds, is between `<!-- runs: FOLDER -->` and `<!-- end -->`.
_RUNS = re.compile(r"(<!-- runs: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rebuild(text: str, folder: Path) -> str:
    """Return the page with its tables made from the csv files in `folder`.

    Raises:
        DataError: a csv file is missing, or has no results of a split.
    """
    text = _TABLE.sub(
        lambda found: found[1] + _table(folder / found[2], found[3], found[4] or "") + found[5], text
    )
    text = _EFFECTS.sub(lambda found: f"{found[1]}\n{table(collect(folder))}\n\n{found[2]}", text)
    text = _SEEN.sub(lambda found: found[1] + _fields_and_gates(folder / found[2]) + found[3], text)
    text = _ACCURACY.sub(lambda found: found[1] + _accuracy(folder / found[2]) + found[3], text)
    return _RUNS.sub(lambda found: found[1] + _metrics_of_runs(folder / found[2]) + found[3], text)


def _table(study: Path, split: str, kind: str) -> str:
    from studies.compare.report import describe_comparison
    from studies.compare.summary import class_table, error_table, main_table, size_table, summarize

    records = read_study(study)
    if split not in records.splits():
        raise DataError(f"{study}: no results of split {split}, only of {', '.join(records.splits())}")
    details = {"classes": class_table, "sizes": size_table, "errors": error_table}
    if kind in details:
        return f"\n{details[kind](records, split)}\n\n"
    summaries = summarize(records, split)
    if kind == "short":
        return f"\n{main_table(summaries)}\n\n"
    conclusions = "\n".join(f"- {one.conclusion}" for one in summaries if one.conclusion)
    return f"\n{main_table(summaries)}\n\n{conclusions}\n\n{describe_comparison(records)}\n\n"


def _fields_and_gates(study: Path) -> str:
    """Return receptive fields from erf.csv, and the mean distance of gates to 1 from gates.csv."""
    lines = [
        "| model | 50 % | 90 % | 99 % | area of 50 % | mean of abs(A - 1) |",
        "|---|---|---|---|---|---|",
    ]
    changes: dict[str, list[float]] = {}
    for row in _rows(study / "gates.csv"):
        changes.setdefault(row["model"], []).append(float(row["mean_change"]))
    for row in _rows(study / "erf.csv"):
        gate = changes.get(row["model"])
        cells = [row["model"], *(f"{row[f'side_{share}']} px" for share in (50, 90, 99))]
        cells += [f"{float(row['area_fraction_50']):.1%}", f"{sum(gate) / len(gate):.2f}" if gate else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n\n"


def _accuracy(study: Path) -> str:
    """Return the table of the designs and kernel sizes in accuracy.csv."""
    from studies.kernels.accuracy import markdown, read_rows, summarize

    rows = read_rows(study / "accuracy.csv")
    if not rows:
        raise DataError(f"{study / 'accuracy.csv'}: no results; studies/van_accuracy.py writes them")
    return f"\n{markdown(summarize(rows))}\n\n"


def _metrics_of_runs(study: Path) -> str:
    """Return a table of runs.csv, whose columns are model, seed and metrics."""
    by_model: dict[str, list[dict[str, str]]] = {}
    for row in _rows(study / "runs.csv"):
        by_model.setdefault(row["model"], []).append(row)
    metrics = [name for name in next(iter(by_model.values()))[0] if name not in ("model", "seed")]
    lines = [
        f"| model | {' | '.join(f'{name} | mean' for name in metrics)} |",
        "|---" * (2 * len(metrics) + 1) + "|",
    ]
    for model, rows in by_model.items():
        cells = [model]
        for name in metrics:
            values = [float(row[name]) for row in rows]
            cells += [", ".join(f"{value:.3f}" for value in values), f"{sum(values) / len(values):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n" + "\n".join(lines) + "\n\n"


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def main(argv: Sequence[str] | None = None) -> None:
    """Write or check the page."""
    p = parser(__doc__.splitlines()[0], prog="studies/results.py")
    p.add_argument(
        "--check", action="store_true", help="write nothing; exit with status 1 if the page would change"
    )
    opt: argparse.Namespace = p.parse_args(argv)
    text = PAGE.read_text(encoding="utf-8")
    rebuilt = rebuild(text, PAGE.with_suffix(""))
    page = relative_to_cwd(PAGE)
    if rebuilt == text:
        count = sum(len(kind.findall(text)) for kind in (_TABLE, _EFFECTS, _SEEN, _ACCURACY, _RUNS))
        LOG.info(f"{page}: its {count} tables are up to date")
    elif opt.check:
        raise YoloError(f"{page}: out of date; run python studies/results.py")
    else:
        with atomic_write(PAGE, "w", encoding="utf-8") as file:
            file.write(rebuilt)
        draw(collect(PAGE.with_suffix("")), PAGE.with_suffix("") / FIGURE)
        LOG.info(f"{page}: tables and {FIGURE} written")


if __name__ == "__main__":
    script.main(main)
