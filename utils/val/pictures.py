"""The pictures of a validation: three batches with labels and detections, curves, confusion matrix."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from utils.plots.batches import output_to_target, plot_images
from utils.plots.curves import plot_confusion_matrix, plot_mc_curve, plot_pr_curve
from utils.plots.figure import new_figure

if TYPE_CHECKING:
    from utils.ops.metrics import APResult

BATCHES = 3  # so many are drawn
PER_PICTURE = 15  # boxes with the highest confidence; more would hide the picture


class Pictures:
    """Draw into `folder`, in a thread beside the work; `finish` waits and reports what went wrong."""

    def __init__(self, folder: Path, names: dict[int, str]) -> None:
        self.folder = folder
        self.names = names
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._pending: list[Future[Any]] = []
        self._draw(new_figure, 1, 1)  # loads matplotlib while the model works

    def batch(
        self, index: int, images: Tensor, targets: Tensor, paths: Sequence[str], detections: list[Tensor]
    ) -> None:
        """Draw one of the first batches; `images` uint8, `targets` (T, 6), `detections` B x (n, 6)."""
        if index >= BATCHES:
            return
        stem = self.folder / f"val_batch{index}"
        found = output_to_target(detections, PER_PICTURE)
        self._draw(plot_images, images, targets, paths, f"{stem}_labels.jpg", self.names)
        self._draw(plot_images, images, found, paths, f"{stem}_pred.jpg", self.names)

    def finish(self, ap: APResult | None, confusion: np.ndarray) -> None:
        """Draw the curves and the matrix, and wait for all that is being drawn."""
        names = list(self.names.values())
        self._draw(plot_confusion_matrix, confusion, self.folder / "confusion_matrix.png", names)
        self._curves(ap)
        for pending in self._pending:
            pending.result()

    def close(self) -> None:
        """Drop what is not drawn yet."""
        self._thread.shutdown(cancel_futures=True)

    def _curves(self, ap: APResult | None) -> None:
        px = np.linspace(0, 1, 1000) if ap is None else ap.px
        none = np.zeros((0, len(px)))  # nothing found: empty plots rather than those of an earlier run
        names = [] if ap is None else [self.names[int(index)] for index in ap.classes]
        pr, scores = (none, np.zeros((0, 10))) if ap is None else (ap.prec_values, ap.ap)
        self._draw(plot_pr_curve, px, pr, scores, self.folder / "PR_curve.png", names)
        for letter, label in (("f1", "F1"), ("p", "Precision"), ("r", "Recall")):
            curve = none if ap is None else getattr(ap, f"{letter}_curve")
            path = self.folder / f"{letter.upper()}_curve.png"
            self._draw(plot_mc_curve, px, curve, path, names, ylabel=label)

    def _draw(self, function: Any, *args: Any, **kwargs: Any) -> None:
        self._pending.append(self._thread.submit(function, *args, **kwargs))
