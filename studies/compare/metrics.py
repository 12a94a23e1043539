"""The metrics of a comparison, and their names in tables, plots and files.

Detection has `mAP50-95` and others. Segmentation has `mask mAP50-95`, which its conclusions are about, and
`box mAP50-95`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from utils.tasks.task import Task

if TYPE_CHECKING:
    from utils.val.accumulator import EvalResult

# What a metric is of -> the end of its columns in results.csv of a run; the main part first.
PARTS = {"": "", "mask": "(M)", "box": "(B)"}


def named(part: str, metric: str) -> str:
    """Return the name of a metric of a part: `mask mAP50`, or `mAP50` for detection."""
    return f"{part} {metric}".lstrip()


def parts_of(names: Iterable[str]) -> list[str]:
    """Return the parts that metrics with these names are of, the main part first."""
    known = set(names)
    return [part for part in PARTS if named(part, "mAP50") in known]


def results_by_part(result: EvalResult) -> dict[str, EvalResult]:
    """Return the result of each part, the main part first."""
    mask = getattr(result, "mask", None)  # of a `SegmentResult`
    return {"": result} if mask is None else {"mask": mask, "box": result}


def metrics_of(result: EvalResult) -> dict[str, Any]:
    """Return what measured.json has of one evaluation; classes without labels have no AP."""
    metrics: dict[str, Any] = {}
    for part, one in results_by_part(result).items():
        classes = one.class_ap
        values = {
            "P": one.mp,
            "R": one.mr,
            "mAP50": one.map50,
            "mAP": one.map,
            "AP": {name: float(ap.mean()) for name, ap in classes.items()},
            "AP50": {name: float(ap[0]) for name, ap in classes.items()},
        }
        metrics |= {named(part, name): value for name, value in values.items()}
    return metrics


def metrics_of_epoch(row: Mapping[str, float]) -> dict[str, float]:
    """Return what measured.json has of one epoch, from its row in results.csv: mAP, and the sum of losses."""
    epoch = {"epoch": row["epoch"]}
    map50, map_ = (f"metrics/{name}" for name in Task.metrics[2:])
    for part, end in PARTS.items():
        if f"{map50}{end}" in row:
            epoch[named(part, "mAP50")] = row[f"{map50}{end}"]
            epoch[named(part, "mAP")] = row[f"{map_}{end}"]
    return epoch | {"loss": sum(value for name, value in row.items() if name.startswith("train/"))}
