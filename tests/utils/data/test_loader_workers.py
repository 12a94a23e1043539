"""Workers that are killed, and too few open files for them, give one line, soon."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.utils.train.small import small_models, small_set
from utils.base.paths import ROOT
from utils.data.loader_workers import WorkerError, count_workers, worker_errors

KILL = """
import os, signal, sys
from pathlib import Path
from tests.utils.data.test_loader import train_set
from utils.base.script import main
from utils.data import loader_workers
from utils.data.loader import make_loader

def run():
    loader_workers.usable_cores = lambda: 1
    loader = make_loader(train_set(Path(sys.argv[1])), 2, workers=1, shuffle=True)
    for epoch in range(10_000):
        loader.set_epoch(epoch)
        for _ in loader:
            if epoch == 1:
                os.kill(loader._loader._iterator._workers[0].pid, signal.SIGKILL)

main(run)
"""


def test_a_killed_worker_is_reported(tmp_path: Path) -> None:
    """Also while errors of it are handled, and on a busy machine: in a process of its own, 3 times."""
    command = [sys.executable, "-c", KILL, str(tmp_path)]
    for _ in range(3):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith("ERROR: a dataloader worker ended")
        assert "if memory was short, lower --workers or --cache" in line


def test_a_killed_dataloader_worker_is_distinguished_from_other_errors() -> None:
    with pytest.raises(WorkerError, match="killed.*--workers"), worker_errors():
        raise RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed.")
    with pytest.raises(RuntimeError, match="shapes"), worker_errors():
        raise RuntimeError("shapes differ")


@pytest.mark.parametrize("files", [24, 80])
def test_too_few_open_files_for_workers(files: int, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))

    data, (model, _) = small_set(tmp_path / "data"), small_models(tmp_path)
    flags = ["--data", data, "--cfg", model, "--weights", "", "--img", 64, "--batch-size", 4, "--workers", 2]
    flags += [
        "--epochs",
        1,
        "--device",
        "cpu",
        "--loggers",
        "none",
        "--noplots",
        "--project",
        tmp_path / "runs",
    ]
    command = [sys.executable, "train.py", *map(str, flags)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, preexec_fn=limit, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    if count_workers(2, 4):  # on one core there are no workers to leave out
        assert f"{files} open files (ulimit -n) are too few for" in done.stderr


def test_the_limit_of_open_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(16, 4096)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, new: limits.append(new))
    monkeypatch.setattr("utils.data.loader_workers.usable_cores", lambda: 4)
    assert count_workers(4, 16) == 4
    assert limits[-1] == (4096, 4096)
