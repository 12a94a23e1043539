"""Kill a training many times and resume it: `-m tests.utils.train.killed SCRIPT KILLS SEED FOLDER FLAGS...`.

Imports once and forks a process for each attempt, so that 20 kills take seconds. Prints the number of kills.
"""

from __future__ import annotations

import importlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from utils.train import trainer  # noqa: F401 - so that children need not


def attempt(script: str, argv: list[str], seconds: float | None) -> int | None:
    """Train in a subprocess that is killed after `seconds`; return its exit status, None if it was killed."""
    child = os.fork()
    if child == 0:
        sys.argv = [script, *argv]
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 1)
            importlib.import_module(script.removesuffix(".py").replace("/", ".")).main()
            os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)


def main() -> None:
    """Kill the training KILLS times at random moments, then let it finish."""
    script, kills, seed, folder, *flags = sys.argv[1:]
    last = Path(folder) / "weights" / "last.pt"
    draw = random.Random(int(seed))
    killed = 0
    while True:
        argv = ["--resume", str(last)] if last.exists() else flags
        status = attempt(script, argv, draw.uniform(0.1, 0.6) if killed < int(kills) else None)
        if status is None:
            killed += 1
        else:
            print(killed)
            sys.exit(status)


if __name__ == "__main__":
    main()
