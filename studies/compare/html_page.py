"""report.html: one page that holds everything, script and images too, and needs no network."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path

from studies.compare.examples import Example
from studies.compare.plots import Figure, class_plot, cost_plot, curve_plot
from studies.compare.records import Records
from studies.compare.summary import class_table, main_table, summarize
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
_ON_EXAMPLES = """Images with the most boxes that only one of two models finds (no partner of the same class
at IoU 0.5), at a confidence of 0.25, by the first run of each model.
Bold and named: those boxes; thin: the others."""
_SCRIPT = """
for (const [id, figure] of Object.entries(FIGURES))
  Plotly.newPlot(id, figure.data, figure.layout, {responsive: true, displaylogo: false});
"""


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
        words = "".join(f"<li>{html.escape(one.words)}</li>" for one in summaries if one.words)
        sections.append(f"<h2>{split}</h2><ul>{words}</ul>{_table(main_table(summaries))}")
        plots = {
            f"latency-{split}": ("mAP50-95 against latency", cost_plot(summaries, "latency")),
            f"gflops-{split}": ("mAP50-95 against GFLOPs", cost_plot(summaries, "gflops")),
            f"classes-{split}": ("AP by class", class_plot(records, split)),
        }
        if split == "val" and records.curves:
            plots["curves"] = ("After each epoch (val)", curve_plot(records))
        for key, (title, figure) in plots.items():
            if figure is not None:
                figures[key] = figure
                sections.append(f'<h3>{title}</h3><div class="plot" id="{key}"></div>')
        sections.append(_table(class_table(records, split, resamples)))
    if examples:
        sections.append(f"<h2>Where they disagree most</h2><p>{_ON_EXAMPLES}</p>")
        sections += [_example(example) for example in examples]
    sections.append(f'<p class="notes">{html.escape(notes)}</p>')
    with atomic_write(folder / PAGE, "w", encoding="utf-8") as file:
        file.write(_document("".join(sections), figures))


def _document(body: str, figures: dict[str, Figure]) -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise YoloError(f"{PAGE} needs Plotly: pip install plotly (the other files are written)") from error
    data = json.dumps(figures).replace("</", "<\\/")  # so that no label can end the script
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Comparison</title>'
        '<link rel="icon" href="data:,"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>Comparison</h1>{body}"
        f"<script>{get_plotlyjs()}</script><script>const FIGURES = {data};{_SCRIPT}</script></body></html>"
    )


def _table(markdown: str) -> str:
    """A markdown table as HTML, in a box that scrolls on narrow screens."""
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
