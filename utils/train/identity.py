"""What a run was made with: command, code, versions, time."""

from __future__ import annotations

import platform
import subprocess
import sys
from datetime import datetime
from typing import Any

from utils.base.paths import ROOT


def run_identity(seed: int) -> dict[str, Any]:
    """Facts for checkpoints and opt.yaml, as plain data."""
    return {
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": list(sys.argv),
        "seed": seed,
        "git": git_facts(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what computes."""
    import cv2
    import numpy
    import torch

    modules = {"torch": torch, "numpy": numpy, "opencv": cv2}
    known = {name: str(module.__version__) for name, module in modules.items()}
    return {"python": platform.python_version(), **known}


def git_facts() -> dict[str, str | None]:
    """Remote, branch and commit of the program's own checkout; None where there is none.

    Asks the local repository only.
    """
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
