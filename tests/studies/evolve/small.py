"""Flags for evolutions of the small detector, and the processes that train its candidates."""

from __future__ import annotations

import os
from pathlib import Path

from tests.utils.train.small import small_models, small_set


def small_flags(home: Path, epochs: int = 1) -> list[str]:
    """Return flags of train.py for a candidate that takes a second, plus the start of Python."""
    data, (model, _) = small_set(home), small_models(home)
    flags = ["--data", str(data), "--cfg", str(model), "--weights", "", "--imgsz", "64", "--batch-size", "4"]
    return [*flags, "--epochs", str(epochs), "--workers", "0", "--device", "cpu", "--noautoanchor"]


def trainings(home: Path, ancestor: int = 0) -> dict[int, Path]:
    """Find the processes that train candidates, and the folders of those.

    Args:
        home: folder of an evolution.
        ancestor: if given, only descendants of this process.
    """
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:  # it has ended
            continue
        below = [word for word in words if word.startswith(f"{home}{os.sep}candidates{os.sep}")]
        descends = not ancestor or ancestor in _ancestors(int(process.name))
        if below and descends and any(word.endswith("train.py") for word in words):
            name = Path(below[0]).relative_to(home / "candidates").parts[0]
            found[int(process.name)] = home / "candidates" / name
    return found


def _ancestors(pid: int) -> list[int]:
    found = []
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            break
        found.append(pid)
    return found
