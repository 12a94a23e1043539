"""The report: the machine, and the rows of all checks, as a page in Markdown."""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import torch

from tests.gpu.checks import Context, Row
from utils.train.run_dir import git_info


def describe_machine(context: Context) -> dict[str, str]:
    """Return what the numbers depend on: the device, its driver, and the versions of the libraries."""
    machine = {
        "device": "CPU (rehearsal)",
        "driver": "none",
        "CUDA": torch.version.cuda or "none",
        "cuDNN": str(torch.backends.cudnn.version()),
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "commit": git_info()["commit"] or "unknown",
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }
    if context.on_cuda:
        properties = torch.cuda.get_device_properties(context.device)
        machine["device"] = (
            f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, compute capability "
            f"{properties.major}.{properties.minor}, {torch.cuda.device_count()} in this machine"
        )
        machine["driver"] = _driver()
    return machine


def _driver() -> str:
    """Return the version of the NVIDIA driver, if nvidia-smi is there."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown (no nvidia-smi)"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unknown ({error})"
    return done.stdout.strip().splitlines()[0] if done.stdout.strip() else "unknown"


def write_report(path: Path, machine: dict[str, str], rows: Sequence[Row]) -> None:
    """Write the page."""
    lines = ["# Checks on a GPU", "", "| | |", "|---|---|"]
    lines += [f"| {key} | {_cell(value)} |" for key, value in machine.items()]
    lines += ["", "| check | result | numbers | seconds |", "|---|---|---|---|"]
    lines += [f"| {row.name} | {row.result} | {_cell(row.numbers)} | {row.seconds:.1f} |" for row in rows]
    lines += ["", summary(rows), ""]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def summary(rows: Sequence[Row]) -> str:
    """Return how many checks passed, failed and were skipped."""
    counts = {result: sum(row.result == result for row in rows) for result in ("ok", "FAILS", "skipped")}
    minutes = sum(row.seconds for row in rows) / 60
    return (
        f"{len(rows)} checks in {minutes:.1f} minutes: {counts['ok']} ok, {counts['FAILS']} fail, "
        f"{counts['skipped']} skipped"
    )
