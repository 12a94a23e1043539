"""Rebuild the tables of docs/results.md from the csv files in docs/results.

python studies/results.py            # write them
python studies/results.py --check    # only say whether they are as they should be
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # the project's packages stand beside this folder
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from utils.base.errors import DataError, YoloError
from utils.base.log import LOG
from utils.base.paths import ROOT, atomic_write, relative_to_cwd
from utils.base.script import main, parser

PAGE = ROOT / "docs" / "results.md"
# Tables stand between `<!-- table: FOLDER SPLIT -->` and `<!-- end -->`. Behind the split: `classes` for AP
# by class, `short` for a table without its sentences.
_PLACE = re.compile(r"(<!-- table: (\S+) (\S+)(?: (classes|short))? -->\n).*?(<!-- end -->)", re.DOTALL)


# What visualize.py measured stands between `<!-- seen: FOLDER -->` and `<!-- end -->`.
_SEEN = re.compile(r"(<!-- seen: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def rebuild(text: str, folder: Path) -> str:
    """The page with all its tables made again from the csv files in `folder`.

    Raises:
        DataError: a csv file is missing, or holds no such split.
    """
    text = _PLACE.sub(
        lambda found: found[1] + _table(folder / found[2], found[3], found[4] or "") + found[5], text
    )
    return _SEEN.sub(lambda found: found[1] + _seen(folder / found[2]) + found[3], text)


def _table(study: Path, split: str, kind: str) -> str:
    from studies.compare.records import read_records
    from studies.compare.report import circumstances
    from studies.compare.summary import class_table, main_table, summarize

    records = read_records(study)
    if split not in records.splits():
        raise DataError(f"{study}: has no results of split {split}, only of {', '.join(records.splits())}")
    if kind == "classes":
        return f"\n{class_table(records, split)}\n\n"
    summaries = summarize(records, split)
    if kind == "short":
        return f"\n{main_table(summaries)}\n\n"
    words = "\n".join(f"- {one.conclusion}" for one in summaries if one.conclusion)
    return f"\n{main_table(summaries)}\n\n{words}\n\n{circumstances(records)}\n\n"


def _seen(study: Path) -> str:
    """Receptive fields of the models in erf.csv, and how far their gates in gates.csv are from 1."""
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


def _rows(path: Path) -> list[dict[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}") from error


def _run_script(argv: Sequence[str] | None = None) -> None:
    p = parser(__doc__.splitlines()[0], prog="studies/results.py")
    p.add_argument("--check", action="store_true", help="write nothing; fail if the page would change")
    opt: argparse.Namespace = p.parse_args(argv)
    text = PAGE.read_text(encoding="utf-8")
    made = rebuild(text, PAGE.with_suffix(""))
    place = relative_to_cwd(PAGE)
    if made == text:
        count = len(_PLACE.findall(text)) + len(_SEEN.findall(text))
        LOG.info(f"{place}: its {count} tables are those of the csv files")
    elif opt.check:
        raise YoloError(f"{place}: not what the csv files give; run python studies/results.py")
    else:
        with atomic_write(PAGE, "w", encoding="utf-8") as file:
            file.write(made)
        LOG.info(f"{place}: tables written")


if __name__ == "__main__":
    main(_run_script)
