"""Compare weight files as they are, on the same images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from studies.compare.latency import measure_latency
from studies.compare.measure_run import model_size
from studies.compare.paired_images import compare_images
from studies.compare.records import Records, class_columns, paired_columns
from utils.base.errors import ConfigError
from utils.base.options import changed
from utils.val.val_options import ValOptions


def compare_files(opt: Namespace, val: ValOptions) -> Records:
    """Measure every file as val.py does, and compare each with the first.

    Args:
        opt: options of compare.py.
        val: options of val.py; its weights are the files.

    Raises:
        ConfigError: labels that do not fit, or fewer than one file.
        DataError: files that are missing or damaged.
    """
    from studies.explain.labelled_models import unique_labels
    from utils.val.measure import measure

    labels = opt.labels or unique_labels([Path(file) for file in val.weights])
    if len(labels) != len(val.weights) or len(set(labels)) != len(labels):
        raise ConfigError(f"--labels: {len(val.weights)} different names are needed, one for each file")
    split = val.task if val.task in ("train", "test") else "val"
    results = [measure(changed(val, weights=file)) for file in val.weights]
    records = Records()
    for label, file, result in zip(labels, val.weights, results, strict=True):
        row: dict[str, Any] = {"model": label, "seed": 0, "split": split, "checkpoint": "best", "flags": file}
        row |= {"P": result.mp, "R": result.mr, "mAP50": result.map50, "mAP50-95": result.map}
        row |= class_columns({name: float(ap.mean()) for name, ap in result.class_ap.items()})
        size = model_size(Path(file), val.imgsz) if file.endswith(".pt") else {}
        records.results.append(row | size)
    for row, result in zip(records.results[1:], results[1:], strict=True):
        assert result.matches is not None and results[0].matches is not None
        pairs = compare_images(
            results[0].matches, result.matches, opt.resamples, comparisons=len(results) - 1
        )
        row |= paired_columns("mAP50", pairs[0]) | paired_columns("mAP50-95", pairs[1])
    if opt.rounds:
        found = measure_latency([Path(file) for file in val.weights], val.imgsz, val.device, opt.rounds)
        for row, (middle, low, high) in zip(records.results, found, strict=True):
            row |= {"latency": middle, "latency_low": low, "latency_high": high}
    return records
