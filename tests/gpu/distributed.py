"""Distributed training with NCCL: several processes on several GPUs, and one process with SyncBatchNorm.

`python -m tests.gpu.distributed DEVICE` is the one process; the checks start it.
"""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import distributed, nn

from tests.gpu.cases import CFG, SeededLoader, flags, read_rows, run_training, train_state, train_steps
from tests.gpu.checks import Check, Context, SkippedCheck, compare
from utils.base.paths import ROOT
from utils.train.distributed import ProcessGroup, TorchrunGroup

TOGETHER = 0.02  # of losses, with the statistics of the batch norms shared
LIMIT = 300  # seconds for a subprocess


def several_processes(context: Context) -> str:
    """Train on two GPUs, or in a rehearsal in two processes; compare the losses with those of one process."""
    if not distributed.is_available():
        raise SkippedCheck("this build of torch has no distributed package")
    if context.on_cuda and torch.cuda.device_count() < 2:
        raise SkippedCheck("needs 2 GPUs, and there is 1; the next check runs NCCL in one process")
    settings = flags(context, "detect", "two", sync_bn=context.on_cuda)
    settings["device"] = "0,1" if context.on_cuda else "cpu"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--standalone",
        "train.py",
    ]
    output = _run([*command, *_command_line(settings)])
    rows = read_rows(context.home / "runs" / "two")
    losses = {name: value for name, value in rows[0].items() if name.startswith("train/")}
    assert all(math.isfinite(value) for value in losses.values()), f"losses {losses}"
    assert output.count("Starting training") == 1, "several processes log"
    shown = ", ".join(f"{name} {value:.3g}" for name, value in losses.items())
    if not context.on_cuda:
        return f"2 processes with gloo: {shown}; each with its own batch norms, so these are not compared"
    expected = run_training("detect", flags(context, "detect", "one")).rows[0]
    most = max(compare(name, value / expected[name], 1.0, 0, TOGETHER) for name, value in losses.items())
    return f"2 GPUs with NCCL and --sync-bn: {shown}; differ from 1 GPU by {most:.1e} (allowed {TOGETHER:g})"


def _command_line(settings: dict[str, Any]) -> list[str]:
    """Return keywords of `train.run` as flags."""
    words: list[str] = []
    for name, value in settings.items():
        flag = "--" + name.replace("_", "-")
        words += [flag] if value is True else [] if value is False else [flag, str(value)]
    return words


def _run(command: list[str]) -> str:
    """Run a command in the root of the project; return what it wrote.

    Raises:
        AssertionError: it failed; the message is its last line.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
    )
    print(done.stdout, done.stderr)
    lines = done.stderr.strip().splitlines() or [""]
    assert done.returncode == 0, f"exit status {done.returncode}: {lines[-1]}"
    return done.stdout


def one_process(context: Context) -> str:
    """Train steps in a process group of one process, and compare its losses with those without a group."""
    if not distributed.is_available():
        raise SkippedCheck("this build of torch has no distributed package")
    device = str(context.device)
    found = json.loads(_run([sys.executable, "-m", "tests.gpu.distributed", device]).splitlines()[-1])
    expected = steps(context, None)
    most = compare("losses", torch.tensor(found["losses"]), torch.tensor(expected), TOGETHER / 4, 1e-4)
    norms = "SyncBatchNorm" if found["sync_bn"] else "plain batch norms, as SyncBatchNorm needs CUDA"
    return f"{found['backend']}, {norms}: losses differ by {most:.1e} (allowed {TOGETHER / 4:g})"


def steps(context: Context, group: ProcessGroup | None) -> list[float]:
    """Train a few steps of the detector, as a member of a group if there is one; return the losses."""
    state = train_state(context, CFG["detect"])
    if group is not None:
        state.process_group = group
        if context.on_cuda:
            state.model = nn.SyncBatchNorm.convert_sync_batchnorm(state.model)
    return train_steps(context, state, SeededLoader(context, "detect", 3))


def main(name: str) -> None:
    """Be the only process of a group, and print the losses as JSON."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
    )
    device = torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with tempfile.TemporaryDirectory() as home, TorchrunGroup(device) as group:
        losses = steps(Context(device, Path(home)), group)
        gathered = group.gather(losses)
        backend = distributed.get_backend()
    assert gathered == [losses]
    print(json.dumps({"losses": losses, "backend": backend, "sync_bn": device.type == "cuda"}))


CHECKS = [
    Check("distributed, several processes", several_processes),
    Check("distributed, one process", one_process),
]

if __name__ == "__main__":
    main(sys.argv[1])
