"""The process of `utils.export.export_job.Job.export_apart`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from typing import Any

from utils.base.processes import answer
from utils.export.export_job import Job


def export(task: dict[str, Any]) -> dict[str, Any]:
    """Export one format; say how it went."""
    opt = Namespace(**task)
    report = asdict(Job(opt.weights[0], opt).export(opt.include[0]))
    return {**report, "file": str(report["file"])}


if __name__ == "__main__":
    answer(export)
