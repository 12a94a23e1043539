"""Write what a comparison found: results.csv, curves.csv, report.md, report.html."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from studies.compare.examples import Gallery
from studies.compare.html_page import write_page
from studies.compare.latency import measure_latency
from studies.compare.records import Records, curves_of_run, rows_of_run
from studies.compare.run_plan import Run
from studies.compare.runner import read_measured
from studies.compare.summary import class_table, main_table, summarize
from utils.base.paths import atomic_write

REPORT = "report.md"
_OVER_SEEDS = """Figures are means over seeds, ± a standard deviation. A difference is in points (hundredths)
of the figure before it, against the first model, paired by seed, with its 95 % bootstrap interval in
brackets (widened for few seeds; below 5 seeds still too narrow). p is of Student's paired t-test. The last
column says after how many epochs a model reached the best mAP50-95 of the first model's run with the same
seed."""
_OVER_IMAGES = """A difference is in points (hundredths) of the figure before it, against the first
model, on the same images, with its 95 % interval from a bootstrap over images in brackets. p is of a
test that exchanges the two models' answers image by image. Other images are covered by this, another
training is not: that takes seeds (--cfg ... --seeds 0 1 2 3 4)."""
_COMMON = """p in parentheses is adjusted (Holm) for all comparisons of its column; the sentences are about
mAP50-95 and go by that.
GFLOPs count a multiply-add as two. Latency is of one image, models in turn: median (quartiles)."""


def gather(runs: Sequence[Run], project: Path) -> Records:
    """The rows of all runs, models in the order of the command line."""
    order = list(dict.fromkeys(run.label for run in runs))
    records = Records()
    for run in sorted(runs, key=lambda run: (order.index(run.label), run.seed)):
        measured = read_measured(run.folder(project))
        records.results += rows_of_run(run.label, run.seed, measured, run.train, start_of(run))
        records.curves += curves_of_run(run.label, run.seed, measured)
    return records


def start_of(run: Run) -> str:
    """What a run started from: a file's name with the beginning of its digest, or `scratch`."""
    from utils.train.train_options import parse_options

    digest = run.settings.get("weights")
    return f"{Path(parse_options(run.train).weights).name} ({digest[:8]})" if digest else "scratch"


def first_weights(runs: Sequence[Run], project: Path) -> dict[str, Path]:
    """The best weights of each model's first run."""
    first: dict[str, Path] = {}
    for run in runs:
        first.setdefault(run.label, run.folder(project) / "weights" / "best.pt")
    return first


def add_latency(records: Records, runs: Sequence[Run], project: Path, device: str, rounds: int) -> None:
    """Measure one run of each model, and note it in all rows of that model."""
    from utils.train.train_options import parse_options

    files = list(first_weights(runs, project).values())
    imgsz = parse_options(runs[0].train).imgsz
    found = measure_latency(files, imgsz, device, rounds)
    for model, (middle, low, high) in zip(records.models, found, strict=True):
        for row in records.results:
            if row["model"] == model:
                row |= {"latency": middle, "latency_low": low, "latency_high": high}


def markdown(records: Records, resamples: int = 2000) -> str:
    """The whole report as text."""
    parts = ["# Comparison", circumstances(records), ""]
    for split in records.splits():
        summaries = summarize(records, split, resamples=resamples)
        which = f"{split}, best.pt of each run" if records.curves else split
        parts += [f"## {which}", "", main_table(summaries), ""]
        parts += [f"- {one.words}" for one in summaries if one.words]
        parts += ["", f"AP by class, {split}, and its difference in points:", ""]
        parts += [class_table(records, split, resamples), ""]
        if any(row["checkpoint"] == "last" for row in records.results):
            last = summarize(records, split, "last", resamples)
            parts += [f"### {split}, last.pt of each run", "", main_table(last), ""]
    return "\n".join([*parts, notes(records), ""])


def notes(records: Records) -> str:
    """How to read the tables."""
    if records.of_files:
        return f"{_OVER_IMAGES}\n{_COMMON}" if len(records.models) > 1 else ""
    few = "Three seeds or fewer can only show large differences.\n" if len(records.seeds) <= 3 else ""
    return f"{few}{_OVER_SEEDS}\n{_COMMON}"


def circumstances(records: Records) -> str:
    """What was compared, in a line."""
    if records.of_files:
        count = len(records.models)
        return f"{count} weight files on the same images." if count > 1 else f"{records.models[0]} alone."
    commits = sorted({str(row.get("commit", "")) for row in records.results} - {""})
    starts = dict.fromkeys(str(row["start"]) for row in records.results if "start" in row)
    start = f", from {' or '.join(starts)}" if starts else ""
    minutes = sum({row["run"]: row.get("minutes", 0.0) for row in records.results}.values())
    code = f"code {', '.join(commits)}" if commits else "code of no known commit"
    mixed = " (several: runs of different code are compared)" if len(commits) > 1 else ""
    seeds = ", ".join(map(str, records.seeds))
    return (
        f"{_count(len(records.models), 'model')}, seeds {seeds}{start}; "
        f"{_count(round(minutes), 'minute')} of training; {code}{mixed}."
    )


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("s" if number != 1 else "")


def write_report(
    records: Records,
    folder: Path,
    gallery: Gallery | None = None,
    resamples: int = 2000,
) -> None:
    """Write the csv files, and both reports, which are made from them.

    Args:
        records: what was measured.
        folder: where to write; made if it is not there.
        gallery: the command line, and images for the page.
        resamples: of the bootstrap.
    """
    gallery = gallery or Gallery()
    folder.mkdir(parents=True, exist_ok=True)
    records.write(folder)
    gallery.write(folder)
    text = markdown(records, resamples)
    if gallery.command:
        text += f"\n    {shlex.join(gallery.command)}\n"
    with atomic_write(folder / REPORT, "w", encoding="utf-8") as file:
        file.write(text)
    write_page(records, folder, f"{circumstances(records)} {notes(records)}", gallery.examples, resamples)
