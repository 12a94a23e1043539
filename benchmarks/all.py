"""Run all benchmarks, write csv files to docs/performance, and rebuild the tables of docs/performance.md.

python benchmarks/all.py                       # make bench; about 20 minutes, with nothing else running
python benchmarks/all.py step attention        # only these
python benchmarks/all.py step-avx2 busy-more   # without AVX-512, and more programs; these run only by name
python benchmarks/all.py --tables              # only the tables, from the existing csv files

A csv file holds the last run. What has a target is also kept for each processor, in processors.csv.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance"
# Name of the csv file -> script and flags that keep its run short.
SCRIPTS: dict[str, list[str]] = {
    "step": ["step", "--part", "time"],
    "memory": ["step", "--part", "memory"],
    "training": ["training", "--images", "64", "--rounds", "3", "--workers", "2"],
    "attention": ["attention"],
    "forward": ["forward"],
    "inference": ["inference", "--rounds", "7"],
    "inference-tasks": ["inference", "--task", "segment", "classify", "--rounds", "5"],
    "startup": ["startup", "--rounds", "5"],
    "augmentation": ["augmentation"],
    "decoding": ["decoding"],
    "metrics": ["metrics"],
    "busy": ["busy", "--rounds", "1", "--others", "1", "4", "--most", "4"],
    "busy-more": [
        *("busy", "--rounds", "1", "--others", "2", "--settings", "as set"),
        *("--jobs", "train", "val", "detect", "compare --jobs 2", "torchrun, 2 processes", "pytest"),
    ],
    "step-avx2": ["step", "--part", "time", "--rounds", "4"],
    "attention-avx2": ["attention", "--rounds", "3"],
    "forward-avx2": ["forward", "--rounds", "4"],
}
DEFAULT = [name for name in SCRIPTS if not name.endswith(("-avx2", "-more"))]
# The same processor without AVX-512: our kernels, PyTorch's and oneDNN's.
AVX2 = {"CC": "cc -mno-avx512f", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
PROCESSORS = "processors"  # csv file and table of the figures with a target on each processor
_COLUMNS = ("table", "what", "target", "processor", "median")
_TABLE = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Run the benchmarks and rebuild the page."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scripts", nargs="*", help="benchmarks to run; default: all")
    p.add_argument("--tables", action="store_true", help="rebuild the tables only")
    opt = p.parse_args()
    if unknown := set(opt.scripts) - set(SCRIPTS):
        p.error(f"unknown benchmark: {', '.join(sorted(unknown))}; known are {', '.join(SCRIPTS)}")
    failed = [] if opt.tables else [name for name in opt.scripts or DEFAULT if not run(name)]
    PAGE.write_text(rebuild(PAGE.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")
    if failed:
        print(f"Failed: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(name: str) -> bool:
    """Run one script; return whether it succeeded."""
    start = time.perf_counter()
    script, *options = SCRIPTS[name]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *options]
    print(f"\n$ python benchmarks/{script}.py {' '.join(options)}", flush=True)
    environment = os.environ | (AVX2 if name.endswith("-avx2") else {})
    done = subprocess.run([*command, "--csv", str(RESULTS / f"{name}.csv")], cwd=ROOT, env=environment)
    print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    if done.returncode == 0:
        remember(name, RESULTS)
    return done.returncode == 0


def remember(name: str, folder: Path) -> None:
    """Add the figures of NAME.csv that have a target to those of their processor, in place of older ones."""
    table = name.partition("-avx2")[0]
    new = {
        (table, row["what"], row["machine"].rpartition(", ")[0]): (row["target"], row["median"])
        for row in _read(folder / f"{name}.csv")
        if row["target"] and row.get("machine")
    }
    file = folder / f"{PROCESSORS}.csv"
    old = {
        (row["table"], row["what"], row["processor"]): (row["target"], row["median"])
        for row in (_read(file) if file.exists() else [])
    }
    with file.open("w", newline="", encoding="utf-8") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(_COLUMNS)
        for (group, what, processor), (target, median) in (old | new).items():
            writer.writerow((group, what, target, processor, median))


def processors_table(folder: Path) -> str:
    """Return a Markdown table with a row for each figure, and a column for each processor."""
    rows = [row for row in _read(folder / f"{PROCESSORS}.csv") if row["table"] in SCRIPTS]
    machines = sorted({row["processor"] for row in rows})
    figures: dict[tuple[str, str], dict[str, str]] = {}
    for row in sorted(rows, key=lambda row: list(SCRIPTS).index(row["table"])):
        shown = f"{float(row['median']):.3g}"
        by = figures.setdefault((row["table"], row["what"]), {})
        by |= {row["processor"]: shown, "target": row["target"]}
    head = f"| table | what | target | {' | '.join(machines)} |\n|---|---|---|{'---|' * len(machines)}\n"
    return head + "".join(
        f"| {table} | {what} | {by['target']} | {' | '.join(by.get(machine, '') for machine in machines)} |\n"
        for (table, what), by in figures.items()
    )


def _read(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def rebuild(page: str, folder: Path) -> str:
    """Replace what is between `<!-- figures: NAME -->` and `<!-- end -->` by the table of NAME.csv."""

    def table_of(name: str) -> str:
        return processors_table(folder) if name == PROCESSORS else table(folder / f"{name}.csv")

    return _TABLE.sub(lambda match: f"{match[1]}{table_of(match[2])}{match[3]}", page)


def table(file: Path) -> str:
    """Return the rows of a csv file as a Markdown table."""
    rows = _read(file)
    head = "| what | target | ratio | quartiles | | sides |\n|---|---|---|---|---|---|\n"
    machines = sorted({row["machine"] for row in rows if row.get("machine")})
    return (
        head
        + "".join(
            f"| {row['what']} | {row['target']} | {float(row['median']):.3g} "
            f"| {float(row['low']):.3g} to {float(row['high']):.3g} | {row['verdict']} | {row['sides']} |\n"
            for row in rows
        )
        + "".join(f"\n{machine}\n" for machine in machines)
    )


if __name__ == "__main__":
    sys.exit(main())
