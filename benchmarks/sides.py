"""A side of a comparison in a process of its own, where it can have settings that a process has once.

The process builds what it times, says so, and then does one round for every line that it reads.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from typing import Any


class Side:
    """The parent's end: call it, and the process does a round."""

    def __init__(self, script: str, *arguments: str, native: bool = True) -> None:
        environment = {**os.environ, "YOLOV5_NATIVE": "1" if native else "0"}
        self.answers: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, script, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read()

    def __call__(self) -> dict[str, Any]:
        """What a round gave; its last line is kept in `answers`, too."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.answers.append(self._read())
        return self.answers[-1]

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError(f"{self._process.args} ended before its turn")

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve(work: Callable[[], dict[str, Any] | None]) -> None:
    """The process's end: a round for each line."""
    print("{}", flush=True)
    for _ in sys.stdin:
        print(json.dumps(work() or {}), flush=True)


def present_memory() -> float:
    """Bytes that this process has in memory now."""
    import psutil

    return float(psutil.Process().memory_info().rss)


def peak_memory() -> float:
    """Most bytes that this process has had in memory."""
    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
