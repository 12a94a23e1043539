"""The process that measures one file for `studies.compare.formats`."""

from __future__ import annotations

from typing import Any

from utils.base.processes import answer
from utils.val.measure import measure
from utils.val.val_options import options_from


def figures(task: dict[str, Any]) -> dict[str, Any]:
    """mAP, and milliseconds a picture, on squares for every format (the task `speed`)."""
    result = measure(options_from({**task, "task": "speed", "workers": 0}))
    return {"map50": result.map50, "map": result.map, "milliseconds": result.speeds[1]}


if __name__ == "__main__":
    answer(figures)
