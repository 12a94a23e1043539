"""A small classification model, and what its runs write."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

from classify import predict

SMALL: dict[str, Any] = {
    "nc": 5,
    "depth_multiple": 1.0,
    "width_multiple": 0.25,
    "backbone": [[-1, 1, "Conv", [32, 6, 2, 2]], [-1, 1, "Conv", [64, 3, 2]], [-1, 1, "C3", [64]]],
    "head": [[-1, 1, "Classify", ["nc"]]],
}
COLUMNS = "epoch,train/loss,val/loss,metrics/accuracy_top1,metrics/accuracy_top5,lr/0"

Flags = Callable[..., dict[str, Any]]


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def predicted(weights: object, source: Path, project: Path, **more: Any) -> Any:
    options = {"imgsz": 32, "device": "cpu", "save_txt": True, "save_csv": True, **more}
    return predict.run(weights=weights, source=source, project=project, **options)
