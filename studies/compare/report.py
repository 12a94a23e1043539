"""Write report.md and report.html: tables, conclusions, interactive plots and example images.

report.html is one page that works offline.
"""

from __future__ import annotations

import base64
import html
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from studies.compare.examples import Example, Gallery
from studies.compare.plots import (
    PlotlyFigure,
    class_plot,
    cost_plot,
    curve_plot,
    effect_plot,
)
from studies.compare.records import Records, curves_of_run, image_rows, rows_of_run
from studies.compare.run_plan import Run, start_of
from studies.compare.summary import (
    class_table,
    error_table,
    image_table,
    main_table,
    size_table,
    summarize,
)
from utils.base.errors import YoloError
from utils.base.paths import atomic_write

PAGE = "report.html"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1100px; padding: 0 16px 48px;
       color: #1a1a1a; background: #fff }
h1 { font-size: 1.6rem } h2 { font-size: 1.25rem; margin-top: 2.2rem }
.wide { overflow-x: auto } table { border-collapse: collapse; font-size: .9rem }
th, td { padding: 4px 10px; text-align: left; border-bottom: 1px solid #ddd; white-space: nowrap }
.plot { width: 100%; min-height: 420px } ul { padding-left: 1.2rem } .notes { color: #555; font-size: .9rem }
.panels { display: flex; flex-wrap: wrap; gap: 8px } figure { margin: 0; flex: 1 1 260px; min-width: 0 }
figure img { width: 100%; height: auto } figcaption { font-size: .85rem; overflow-wrap: anywhere }
"""
_SCRIPT = """
for (const [id, figure] of Object.entries(FIGURES))
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displaylogo: false});
"""
REPORT = "report.md"
_OVER_SEEDS = """Metrics are means over seeds, ± a standard deviation. A difference is in points (hundredths)
of the metric before it, against the first model, paired by seed, with its 95 % bootstrap interval in
brackets (widened for few seeds; below 5 seeds still too narrow). p is from Student's paired t-test. The last
column says after how many epochs a model reached the best {curve} of the first model's run with the same
seed."""
_OVER_FOLDS = """Metrics are means over the folds of all seeds, ± a standard deviation. A difference is in
points (hundredths) of the metric before it, against the first model, paired by fold, with its 95 % interval
in brackets. p and the interval are from Student's t-test, with the variance corrected for training images
that folds share (Nadeau and Bengio). The last column says after how many epochs a model reached the best
{curve} of the first model's run on the same fold."""
_OVER_IMAGES = """A difference is in points (hundredths) of the metric before it, against the first
model, on the same images, with its 95 % interval from a bootstrap over images in brackets. p is from a
permutation test that exchanges the two models' results image by image. This covers the choice of
images, but not the variation between trainings: that takes seeds (--cfg ... --seeds 0 1 2 3 4)."""
_BY_SIZE = """AP50-95 of the objects of each size: those of COCO, by the area of the box in pixels of the
original image (small: below 32², large: from 96² on), and the quartiles of the areas in this split, from the
smallest. In parentheses, the difference to the first model in points."""
_BY_ERROR = """Points of mAP50 that would be gained if all errors of a kind were corrected, as in TIDE: wrong
class; right class with too little overlap (IoU 0.1 to 0.5); both; a second detection of an object; a
detection of the background; a missed object. In parentheses, the difference to the first model; below zero,
the errors cost less."""
_BY_IMAGE = """The metric of each image alone, mean over the runs of a model: AP50-95 of the classes in the
image, or the share of runs that name its class. images.csv has all images."""
_COMMON = """p in parentheses is adjusted (Holm) for all comparisons of its column; the sentences are about
{metric} and use it.
GFLOPs count a multiply-add as two. Latency is for one image, models in turn: median (quartiles)."""


def write_page(
    records: Records,
    folder: Path,
    notes: str,
    examples: Sequence[Example] = (),
    resamples: int = 2000,
) -> None:
    """Write the page into `folder`.

    Raises:
        YoloError: Plotly is not installed.
    """
    sections, figures = [], {}
    for split in records.splits():
        summaries = summarize(records, split, resamples=resamples)
        items = "".join(f"<li>{html.escape(one.conclusion)}</li>" for one in summaries if one.conclusion)
        sections.append(f"<h2>{split}</h2><ul>{items}</ul>{_table(main_table(summaries))}")
        plots = {
            f"effects-{split}": (f"Difference to {records.models[0]}", effect_plot(summaries)),
            f"latency-{split}": (f"{records.main} against latency", cost_plot(summaries, "latency")),
            f"gflops-{split}": (f"{records.main} against GFLOPs", cost_plot(summaries, "gflops")),
            f"classes-{split}": (_class_title(records), class_plot(records, split)),
        }
        if split == "val" and records.curves:
            plots["curves"] = ("After each epoch (val)", curve_plot(records))
        for key, (title, figure) in plots.items():
            if figure is not None:
                figures[key] = figure
                sections.append(f'<h3>{title}</h3><div class="plot" id="{key}"></div>')
        sections.append(_table(class_table(records, split, resamples)))
        for title, text, table in _details(records, split, resamples):
            sections.append(f"<h3>{title}</h3><p>{text}</p>{_table(table)}")
    if examples:
        sections.append(f"<h2>Where they disagree most</h2><p>{records.metric_set.examples}</p>")
        sections += [_example(example) for example in examples]
    sections.append(f'<p class="notes">{html.escape(notes)}</p>')
    with atomic_write(folder / PAGE, "w", encoding="utf-8") as file:
        file.write(_document("".join(sections), figures))


def _document(body: str, figures: dict[str, PlotlyFigure]) -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise YoloError(f"{PAGE} needs Plotly: pip install plotly (the other files are written)") from error
    data = json.dumps(figures).replace("</", "<\\/")  # a label must not end the script
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Comparison</title>'
        '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>Comparison</h1>{body}"
        f"<script>{get_plotlyjs()}</script><script>const FIGURES = {data};{_SCRIPT}</script></body></html>"
    )


def _table(markdown: str) -> str:
    """Convert a markdown table to HTML, in a box that scrolls on narrow screens."""
    head, _, *rows = [line.strip("| ").split(" | ") for line in markdown.splitlines()]
    width = len(head)
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    lines = []
    for row in rows:
        cells = [cell.strip(" |") for cell in row] + [""] * (width - len(row))
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>")
    return f'<div class="wide"><table><tr>{top}</tr>{"".join(lines)}</table></div>'


def _example(example: Example) -> str:
    import cv2

    panels = []
    for label, image in example.panels:
        done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 85])
        assert done
        text = base64.b64encode(data.tobytes()).decode()
        caption = f"<figcaption>{html.escape(label)}</figcaption>"
        alt = html.escape(f"{example.title}: {label}", quote=True)
        panels.append(f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{text}">{caption}</figure>')
    return f'<h3>{html.escape(example.title)}</h3><div class="panels">{"".join(panels)}</div>'


def gather(runs: Sequence[Run], project: Path) -> Records:
    """Return the rows of all runs, models in the order of the command line."""
    order = list(dict.fromkeys(run.label for run in runs))
    records = Records()
    images: dict[str, list[dict[str, dict[str, float]]]] = {}
    for run in sorted(runs, key=lambda run: (order.index(run.label), run.seed, run.fold)):
        measured, key = run.measured(project), (run.seed, run.fold)
        records.results += rows_of_run(run.label, key, measured, run.train, start_of(run))
        records.curves += curves_of_run(run.label, key, measured)
        images.setdefault(run.label, []).append(measured.get("images", {}))  # none in those of old versions
    records.images = [row for label, of_runs in images.items() for row in image_rows(label, of_runs)]
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
        lines += ["", f"{_class_title(records)}, {split}, and its difference in points:", ""]
        lines += [class_table(records, split, resamples), ""]
        for title, text, table in _details(records, split, resamples):
            lines += [f"### {title}, {split}", "", text, "", table, ""]
        if any(row["checkpoint"] == "last" for row in records.results):
            last = summarize(records, split, "last", resamples)
            lines += [f"### {split}, last.pt of each run", "", main_table(last), ""]
    return "\n".join([*lines, notes(records), ""])


def notes(records: Records) -> str:
    """Return the notes that explain the tables."""
    if records.of_files:
        text = f"{_OVER_IMAGES}\n{_COMMON}" if len(records.models) > 1 else ""
    else:
        few = "Three seeds or fewer can only show large differences.\n" if len(records.seeds) <= 3 else ""
        text = f"{_OVER_FOLDS if records.folds else few + _OVER_SEEDS}\n{_COMMON}"
    return text.format(metric=records.main, curve=records.of_epochs)


def _details(records: Records, split: str, resamples: int) -> Iterator[tuple[str, str, str]]:
    """Yield title, explanation and markdown table of each breakdown that was measured."""
    tables = (
        ("AP by object size", _BY_SIZE, size_table(records, split, resamples)),
        ("What errors cost", _BY_ERROR, error_table(records, split, resamples)),
        ("Images that differ most", _BY_IMAGE, image_table(records, split)),
    )
    yield from ((title, text, table) for title, text, table in tables if table)


def _class_title(records: Records) -> str:
    title = f"{records.metric_set.by_class} by class"
    return title[0].upper() + title[1:]


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
    seeds += f" with {records.folds} folds each" if records.folds else ""
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
