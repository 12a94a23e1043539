from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest

from utils.base.errors import DataError
from utils.base.processes import _run_to_completion, run_in_subprocess

FAMILY = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open(sys.argv[1], "w").write(str(child.pid))
time.sleep(60)
"""


def test_a_subprocess_that_ends_without_a_result_is_an_error_with_its_last_line() -> None:
    with pytest.raises(DataError, match=r"^ended with status 1: .*utils.no_such_module"):
        run_in_subprocess("utils.no_such_module", {}, quiet=True)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="needs groups of processes")
def test_a_stopped_process_stops_its_subprocesses(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"

    def stop(number: int, frame: object) -> None:
        if pid_file.exists() and pid_file.read_text():
            raise KeyboardInterrupt
        signal.setitimer(signal.ITIMER_REAL, 0.1)

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            _run_to_completion([sys.executable, "-c", FAMILY, str(pid_file)], None)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    grandchild = Path("/proc", pid_file.read_text())
    for _ in range(50):
        if not grandchild.exists() or ") Z" in (grandchild / "stat").read_text():
            return
        time.sleep(0.1)
    pytest.fail("the subprocess of the stopped process still runs")
