"""Write the results of a comparison: results.csv, curves.csv, report.md, report.html."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from studies.compare.examples import Gallery
from studies.compare.html_page import write_page
from studies.compare.records import Records, curves_of_run, rows_of_run
from studies.compare.run_plan import start_of
from studies.compare.runs import Run
from studies.compare.summary import class_table, main_table, summarize
from utils.base.paths import atomic_write

REPORT = "report.md"
_OVER_SEEDS = """Metrics are means over seeds, ± a standard deviation. A difference is in points (hundredths)
of the metric before it, against the first model, paired by seed, with its 95 % bootstrap interval in
brackets (widened for few seeds; below 5 seeds still too narrow). p is from Student's paired t-test. The last
column says after how many epochs a model reached the best mAP50-95 of the first model's run with the same
seed."""
_OVER_IMAGES = """A difference is in points (hundredths) of the metric before it, against the first
model, on the same images, with its 95 % interval from a bootstrap over images in brackets. p is from a
permutation test that exchanges the two models' detections image by image. This covers the choice of
images, but not the variation between trainings: that takes seeds (--cfg ... --seeds 0 1 2 3 4)."""
_COMMON = """p in parentheses is adjusted (Holm) for all comparisons of its column; the sentences are about
mAP50-95 and use it.
GFLOPs count a multiply-add as two. Latency is for one image, models in turn: median (quartiles)."""


def gather(runs: Sequence[Run], project: Path) -> Records:
    """Return the rows of all runs, models in the order of the command line."""
    order = list(dict.fromkeys(run.label for run in runs))
    records = Records()
    for run in sorted(runs, key=lambda run: (order.index(run.label), run.seed)):
        measured = run.measured(project)
        records.results += rows_of_run(run.label, run.seed, measured, run.train, start_of(run))
        records.curves += curves_of_run(run.label, run.seed, measured)
    return records


def first_weights(runs: Sequence[Run], project: Path) -> dict[str, Path]:
    """Return the best weights of each model's first run, by label."""
    first: dict[str, Path] = {}
    for run in runs:
        first.setdefault(run.label, run.weights(project))
    return first


def markdown(records: Records, resamples: int = 2000) -> str:
    """Return the whole report."""
    lines = ["# Comparison", describe_comparison(records), ""]
    for split in records.splits():
        summaries = summarize(records, split, resamples=resamples)
        which = f"{split}, best.pt of each run" if records.curves else split
        lines += [f"## {which}", "", main_table(summaries), ""]
        lines += [f"- {one.conclusion}" for one in summaries if one.conclusion]
        lines += ["", f"AP by class, {split}, and its difference in points:", ""]
        lines += [class_table(records, split, resamples), ""]
        if any(row["checkpoint"] == "last" for row in records.results):
            last = summarize(records, split, "last", resamples)
            lines += [f"### {split}, last.pt of each run", "", main_table(last), ""]
    return "\n".join([*lines, notes(records), ""])


def notes(records: Records) -> str:
    """Return the notes that explain the tables."""
    if records.of_files:
        return f"{_OVER_IMAGES}\n{_COMMON}" if len(records.models) > 1 else ""
    few = "Three seeds or fewer can only show large differences.\n" if len(records.seeds) <= 3 else ""
    return f"{few}{_OVER_SEEDS}\n{_COMMON}"


def describe_comparison(records: Records) -> str:
    """Describe in one line what was compared: models, seeds, initial weights, time and commit."""
    if records.of_files:
        count = len(records.models)
        return f"{count} weight files on the same images." if count > 1 else f"{records.models[0]} alone."
    commits = sorted({str(row.get("commit", "")) for row in records.results} - {""})
    starts = dict.fromkeys(str(row["start"]) for row in records.results if "start" in row)
    start = f", from {' or '.join(starts)}" if starts else ""
    minutes = sum({row["run"]: row.get("minutes", 0.0) for row in records.results}.values())
    code = f"code {', '.join(commits)}" if commits else "code of an unknown commit"
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
    """Write the csv files, and both reports, which are made from the same rows.

    Args:
        records: of the comparison.
        folder: made if it does not exist.
        gallery: command line, and example images for the page.
        resamples: number of bootstrap resamples.
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
    write_page(
        records, folder, f"{describe_comparison(records)} {notes(records)}", gallery.examples, resamples
    )
