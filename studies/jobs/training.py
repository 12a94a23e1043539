"""A training in a process of its own: the command that begins it or goes on with it, and how far it is."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.base.paths import SCRIPTS


def training_command(folder: Path, flags: Sequence[str], device: str = "") -> list[str]:
    """The command that trains in a folder, or goes on with what is there.

    Args:
        folder: of the run.
        flags: of train.py, but for the place and the device.
        device: as `--device`.
    """
    train = [sys.executable, str(SCRIPTS / "train.py")]
    last = folder / "weights" / "last.pt"
    where = ["--device", device] if device else []
    if last.is_file():
        return [*train, "--resume", str(last), *where]
    place = ["--project", str(folder.parent), "--name", folder.name, "--exist-ok", "--noplots"]
    return [*train, "--loggers", "none", *flags, *place, *where]  # flags may ask for some


def is_trained(folder: Path, flags: Sequence[str]) -> bool:
    """Whether the training in a folder is finished: its checkpoint has all epochs, or cannot be resumed."""
    from models.weights import read_checkpoint
    from utils.train.train_options import parse_options

    last = folder / "weights" / "last.pt"
    if not last.is_file():
        return False
    checkpoint = read_checkpoint(last)
    return checkpoint.training is None or checkpoint.epoch + 1 >= parse_options(flags).epochs
