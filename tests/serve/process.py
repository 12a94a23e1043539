"""Run `python -m serve` as a subprocess on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.models.backends.files import SIDE, checkpoint
from utils.base.paths import ROOT

START, END = 60, 30  # timeouts in seconds, for a busy machine


@dataclass
class Server:
    """A running server; `first` is the line of its log that contains the URL."""

    process: subprocess.Popen[str]
    url: str
    first: str


def command(*flags: str) -> list[str]:
    return [sys.executable, "-m", "serve", *flags]


def environment(api_key: str = "") -> dict[str, str]:
    return {**os.environ, "API_KEY": api_key, "OMP_NUM_THREADS": "1"}


@contextmanager
def started(*flags: str, api_key: str = "", weights: Sequence[str] = ()) -> Iterator[Server]:
    """Serve the tiny model twice, or `weights`; stop the server if the test has not."""
    files = weights or [str(checkpoint())] * 2
    common = ("--weights", *files, "--port", "0", "--device", "cpu", "--imgsz", str(SIDE))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command(*common, *flags), cwd=ROOT, env=environment(api_key), **pipes)
    try:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if found := re.search(r"http://[\d.]+:\d+", line):
                yield Server(process, found[0], line)
                break
        else:
            raise AssertionError(process.stderr.read())
    finally:
        process.kill()
        process.communicate()
