"""Make figures without pyplot, whose global state does not allow drawing in several threads."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of `width` x `height` inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure, without warnings for letters that matplotlib's font lacks (they become boxes)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(str(path), dpi=dpi)


def disable_mathtext(texts: Iterable[Any]) -> None:
    """Disable mathtext in these texts, so that `$` in a class name does not start a formula."""
    for text in texts:
        text.set_parse_math(False)
