"""Metadata of a run: date, command, code, versions, and digests of the data."""

from __future__ import annotations

import hashlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from utils.base.paths import ROOT

if TYPE_CHECKING:
    from utils.data.dataset import DetectionDataset


def run_metadata(seed: int, sets: Mapping[str, DetectionDataset] | None = None) -> dict[str, Any]:
    """Return the metadata that checkpoints and opt.yaml hold, as plain data; `sets` are datasets by split."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "seed": seed,
        "git": git_info(),
        "versions": versions(),
        "data": {split: dataset_digest(dataset) for split, dataset in (sets or {}).items()},
    }


def versions() -> dict[str, str]:
    """Return versions and threads of what computes: others may round differently."""
    import cv2
    import numpy
    import torch

    from utils.native.library import library

    modules = {"torch": torch, "numpy": numpy, "opencv": cv2}
    known = {name: str(module.__version__) for name, module in modules.items()}
    kernels = "PyTorch's" if library() is None else "compiled"
    threads = str(torch.get_num_threads())
    return {"python": platform.python_version(), **known, "threads": threads, "kernels": kernels}


def dataset_digest(dataset: DetectionDataset) -> dict[str, Any]:
    """Return the number of images and labels, and a digest of files, sizes and labels."""
    rows = dataset.labels.joined()
    digest = hashlib.sha256(dataset.shapes.tobytes() + dataset.labels.counts.tobytes() + rows.tobytes())
    digest.update(dataset.content.encode())
    return {"pictures": len(dataset), "labels": len(rows), "digest": digest.hexdigest()[:16]}


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """List changes of data, versions and commit since a checkpoint: results may differ in the last bits."""
    changes = []
    for split, old in (before.get("data") or {}).items():
        new = now["data"].get(split, {})
        if new == old:
            continue
        counts = [
            f"{new[key]} {word}, the run had {old[key]}"
            for key, word in (("pictures", "images"), ("labels", "labels"))
            if new[key] != old[key]
        ]
        what = "; ".join(counts) or "the same number of images and labels, but other ones"
        changes.append(f"{split} data has changed: {what}")
    for name, old in (before.get("versions") or {}).items():
        new = now["versions"].get(name)
        if new != old:
            changes.append(f"{name} is {new}, the run had {old}")
    old, new = ((metadata.get("git") or {}).get("commit") for metadata in (before, now))
    if old and new and old != new:
        changes.append(f"the code is that of commit {new[:12]}, the run had {old[:12]}")
    return changes


def git_info() -> dict[str, str | None]:
    """Return remote, branch and commit of this checkout, from the local repository only; None if unknown."""
    questions = {
        "remote": ["config", "--get", "remote.origin.url"],
        "branch": ["rev-parse", "--abbrev-ref", "HEAD"],
        "commit": ["rev-parse", "HEAD"],
    }
    if not (ROOT / ".git").exists():
        return dict.fromkeys(questions)
    return {name: _git(words) for name, words in questions.items()}


def _git(words: list[str]) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
