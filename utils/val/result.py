"""What a validation found, and the console table that shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from utils.base.log import LOG

if TYPE_CHECKING:
    from utils.ops.metrics import APResult
    from utils.val.accumulator import Matches

HEADER = ("%22s" + "%11s" * 6) % ("Class", "Images", "Instances", "P", "R", "mAP50", "mAP50-95")
_IOU_LEVELS = 10
_ROW = "%22s" + "%11i" * 2 + "%11.3g" * 4


@dataclass(frozen=True)
class EvalResult:
    """Figures of one validation.

    `maps` (nc,) holds mAP50-95 of each class, and NaN for a class without labels: nothing is known
    about it. `filled_maps` replaces the NaN by the overall mAP, which is what the original reports.
    """

    names: dict[int, str]
    seen: int  # pictures
    label_counts: np.ndarray  # (nc,) objects of each class
    maps: np.ndarray
    mp: float = 0.0
    mr: float = 0.0
    map50: float = 0.0
    map: float = 0.0
    losses: tuple[float, float, float] = (0.0, 0.0, 0.0)  # box, obj, cls: means over the batches
    speeds: tuple[float, float, float] = (0.0, 0.0, 0.0)  # ms a picture: prepare, infer, suppress
    ap: APResult | None = None  # None: not a single detection is right
    matches: Matches | None = None

    @property
    def instances(self) -> int:
        """Objects in the labels."""
        return int(self.label_counts.sum())

    @property
    def results(self) -> tuple[float, ...]:
        """(P, R, mAP50, mAP50-95, box, obj, cls), the order of results.csv."""
        return (self.mp, self.mr, self.map50, self.map, *self.losses)

    @property
    def filled_maps(self) -> np.ndarray:
        """`maps` with the overall mAP in place of NaN."""
        return np.where(np.isnan(self.maps), self.map, self.maps)

    @property
    def class_ap(self) -> dict[str, np.ndarray]:
        """AP of each class that has labels, (10,) at IoU 0.5 to 0.95; zeros where nothing is right."""
        if self.ap is not None:
            return dict(zip(self.ap.names, self.ap.ap, strict=True))
        labelled = np.flatnonzero(self.label_counts)
        return {self.names.get(int(c), str(c)): np.zeros(_IOU_LEVELS) for c in labelled}

    def fitness(self) -> float:
        """One number to choose the best model by: 0.1 mAP50 + 0.9 mAP50-95."""
        return weighted(self.map50, self.map)

    def __iter__(self) -> Iterator[Any]:
        """Unpack as the original's return value: results, maps, speeds."""
        return iter((self.results, self.filled_maps, self.speeds))


def weighted(map50: float, map50_95: float) -> float:
    """Fitness: what models and hyperparameters are ranked by."""
    return 0.1 * map50 + 0.9 * map50_95


def print_rows(result: EvalResult, per_class: bool) -> None:
    """Print the row `all` and, if asked for, one row for each class that has labels."""
    LOG.info(
        _ROW, "all", result.seen, result.instances, result.mp, result.mr, result.map50, result.map
    )  # fmt: skip
    if not per_class or result.ap is None:
        return
    ap = result.ap
    for row, index in enumerate(ap.classes):
        count = result.label_counts[index]
        figures = (ap.p[row], ap.r[row], ap.ap[row, 0], ap.ap[row].mean())
        LOG.info(_ROW, result.names[int(index)], result.seen, count, *figures)
