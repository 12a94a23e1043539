"""The metrics of a comparison, and their names in tables, plots and files.

Detection has `mAP50-95` and others. Segmentation has `mask mAP50-95`, which its conclusions are about, and
`box mAP50-95`. Classification has `top-1` and `top-5`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from utils.base.errors import ConfigError
from utils.tasks.task import Task

SIZES = ("small", "medium", "large", "quartile 1", "quartile 2", "quartile 3", "quartile 4")
KINDS = ("class", "location", "both", "duplicate", "background", "missed")  # of errors


@dataclass(frozen=True)
class MetricSet:
    """The metrics of the models of a task.

    Attributes:
        compared: metrics with differences in the tables.
        main: the one that conclusions and curves are about.
        by_class: the metric of each class; in csv files a column for each, after it and a slash.
        class_axis: its name in plots.
        columns: metrics in csv files, with their names in measured.json.
        epochs: metrics that are measured after each epoch, with their columns in results.csv of a run.
        examples: what the example images of a report are.
        sizes: objects of a size -> the metric of these, see `breakdown.ap_by_size`.
        errors: a kind of error -> what it costs, see `breakdown.error_costs`.
    """

    compared: tuple[str, ...]
    main: str
    by_class: str
    class_axis: str
    columns: Mapping[str, str]
    epochs: Mapping[str, str]
    examples: str
    sizes: Mapping[str, str] = field(default_factory=dict)
    errors: Mapping[str, str] = field(default_factory=dict)

    def check_metric(self, name: str, classes: Iterable[str]) -> None:
        """Raise ConfigError unless a metric of this name is measured of models that know the classes."""
        by_class = (f"{self.by_class}/{one}" for one in classes)
        known = (*self.columns, *self.sizes.values(), *self.errors.values(), *by_class)
        if name and name not in known:
            raise ConfigError(f"--metric {name}: not measured; choose one of {', '.join(map(repr, known))}")


def named(part: str, metric: str) -> str:
    """Return the name of a metric of a part: `mask mAP50`, or `mAP50` for detection."""
    return f"{part} {metric}".lstrip()


_BOX_EXAMPLES = """Images with the most boxes that only one of two models detects (no match of the same
class at IoU 0.5), at a confidence threshold of 0.25, by the first run of each model. Those objects are bold
and labelled, all others are thin."""
_CLASS_EXAMPLES = """Images of which two models name different classes, by the first run of each model: first
those of which both are surest. A panel has a green frame if its class is the true one."""


def _average_precision(parts: Mapping[str, str]) -> MetricSet:
    """Return the metrics of models whose mAP is of parts: name -> end of its columns; the main one first."""
    main = next(iter(parts))
    columns: dict[str, str] = {}
    epochs: dict[str, str] = {}
    map50, map_ = (f"metrics/{name}" for name in Task.metrics[2:])
    for part, end in parts.items():
        columns |= {named(part, name): named(part, name) for name in ("P", "R", "mAP50")}
        columns[named(part, "mAP50-95")] = named(part, "mAP")
        epochs[named(part, "mAP50")] = f"{map50}{end}"
        epochs[named(part, "mAP50-95")] = f"{map_}{end}"
    return MetricSet(
        compared=(named(main, "mAP50"), *(named(part, "mAP50-95") for part in parts)),
        main=named(main, "mAP50-95"),
        by_class=named(main, "AP"),
        class_axis=named(main, "AP50-95"),
        columns=columns,
        epochs=epochs,
        examples=_BOX_EXAMPLES,
        sizes={size: named(main, f"AP {size}") for size in SIZES},
        errors={kind: named(_boxes_of(parts), f"dAP50 {kind}") for kind in KINDS},
    )


def _boxes_of(parts: Iterable[str]) -> str:
    """Return the name of the part with boxes, the last one: only these have errors of overlap."""
    return list(parts)[-1]


METRICS = {
    "detect": _average_precision({"": ""}),
    "segment": _average_precision({"mask": "(M)", "box": "(B)"}),
    "classify": MetricSet(
        compared=("top-1", "top-5"),
        main="top-1",
        by_class="accuracy",
        class_axis="accuracy",
        columns={"top-1": "top-1", "top-5": "top-5"},
        epochs={"top-1": "metrics/accuracy_top1", "top-5": "metrics/accuracy_top5"},
        examples=_CLASS_EXAMPLES,
    ),
}


def set_with(names: Iterable[str]) -> MetricSet:
    """Return the metrics that a row of results.csv with these columns, or measured.json, is about."""
    known = set(names)
    return next(one for one in METRICS.values() if {one.main, one.columns[one.main]} & known)


def metrics_of_epoch(row: Mapping[str, float]) -> dict[str, float]:
    """Return what measured.json has of one epoch, from its row in results.csv, with the sum of losses."""
    found = next(one for one in METRICS.values() if one.epochs[one.main] in row)
    epoch = {"epoch": row["epoch"]}
    epoch |= {found.columns[name]: row[column] for name, column in found.epochs.items()}
    return epoch | {"loss": sum(value for name, value in row.items() if name.startswith("train/"))}
