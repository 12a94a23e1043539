"""Run all benchmarks, keep their figures in docs/performance, and rebuild the tables of docs/performance.md.

python benchmarks/all.py                  # make bench; about 20 minutes, in which nothing else should run
python benchmarks/all.py step attention   # these alone
python benchmarks/all.py --tables         # only the tables, from the figures that are there
"""

from __future__ import annotations

import argparse
import csv
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE, FIGURES = ROOT / "docs" / "performance.md", ROOT / "docs" / "performance"
# Name of the figures: script, and the options that keep it short.
SCRIPTS: dict[str, list[str]] = {
    "step": ["step", "--part", "time"],
    "memory": ["step", "--part", "memory"],
    "training": ["training", "--images", "64", "--rounds", "4"],
    "attention": ["attention"],
    "forward": ["forward"],
    "inference": ["inference", "--rounds", "7"],
    "startup": ["startup", "--rounds", "5"],
    "augmentation": ["augmentation"],
    "decoding": ["decoding"],
    "metrics": ["metrics"],
}
_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> int:
    """Measure, and write."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scripts", nargs="*", help="all, if none is named")
    p.add_argument("--tables", action="store_true", help="measure nothing")
    opt = p.parse_args()
    if unknown := set(opt.scripts) - set(SCRIPTS):
        p.error(f"no such benchmark: {', '.join(sorted(unknown))}; there are {', '.join(SCRIPTS)}")
    failed = [] if opt.tables else [name for name in opt.scripts or SCRIPTS if not run(name)]
    PAGE.write_text(rebuild(PAGE.read_text(encoding="utf-8"), FIGURES), encoding="utf-8")
    if failed:
        print(f"These ended with an error: {', '.join(failed)}", file=sys.stderr)
    return int(bool(failed))


def run(name: str) -> bool:
    """Run one script; say whether it ended well."""
    start = time.perf_counter()
    script, *options = SCRIPTS[name]
    command = [sys.executable, str(ROOT / "benchmarks" / f"{script}.py"), *options]
    print(f"\n$ python benchmarks/{script}.py {' '.join(options)}", flush=True)
    done = subprocess.run([*command, "--csv", str(FIGURES / f"{name}.csv")], cwd=ROOT)
    print(f"({time.perf_counter() - start:.0f} s)", flush=True)
    return done.returncode == 0


def rebuild(page: str, folder: Path) -> str:
    """The page with its tables made again: NAME.csv between `<!-- figures: NAME -->` and `<!-- end -->`."""
    return _PLACE.sub(lambda place: f"{place[1]}{table(folder / f'{place[2]}.csv')}{place[3]}", page)


def table(figures: Path) -> str:
    """The lines of a csv file as a table in Markdown."""
    with figures.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    head = "| what | target | ratio | quartiles | | sides |\n|---|---|---|---|---|---|\n"
    return head + "".join(
        f"| {row['what']} | {row['target']} | {float(row['median']):.3g} "
        f"| {float(row['low']):.3g} to {float(row['high']):.3g} | {row['verdict']} | {row['sides']} |\n"
        for row in rows
    )


if __name__ == "__main__":
    sys.exit(main())
