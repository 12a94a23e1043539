"""Blocks of the user: a Python file named with --blocks, the only file of a user that is run as code.

The file registers its classes as models/common.py does. Checkpoints record its name and SHA-256 for the
blocks that a model contains; nothing imports a file because a checkpoint, yaml or dataset names it.
"""

from __future__ import annotations

import hashlib
import runpy
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import models.common  # noqa: F401 - registers the blocks whose names are taken
from models import registry
from models.attention.gates import GATES
from utils.base.errors import ConfigError, MissingFileError, YoloError, first_line
from utils.base.inputs import expand_user
from utils.base.log import LOG


@dataclass(frozen=True)
class BlocksFile:
    """A file that has been run in this process."""

    path: Path
    sha256: str
    names: tuple[str, ...]  # of its blocks

    def record(self) -> dict[str, str]:
        """Return what a checkpoint records about the file."""
        return {"file": self.path.name, "sha256": self.sha256}


_loaded: dict[Path, BlocksFile] = {}


def load_blocks(name: str | Path) -> BlocksFile | None:
    """Run the file that --blocks names, so that yamls and checkpoints can use its blocks; once per process.

    A block with the rule `same_channels` is also a `design` of the attention blocks.

    Args:
        name: path of the file; empty: nothing is done.

    Raises:
        ConfigError: no such file, it fails, it registers no block, or a block has the name of one of ours.
    """
    if not name:
        return None
    path = expand_user(name).resolve()
    if path in _loaded:
        return _loaded[path]
    try:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise MissingFileError(f"--blocks {name}: no such file") from error
    except OSError as error:
        raise ConfigError(f"--blocks {name}: {error.strerror or error}") from error
    before = registry.snapshot()
    try:
        names = _run(path, name, before)
    except ConfigError:
        registry.restore(before)
        raise
    found = _loaded[path] = BlocksFile(path, sha256, names)
    GATES.update({block: registry.registered()[block] for block in names if registry.keeps_channels(block)})
    LOG.info(f"blocks: {', '.join(names)} of {name} (SHA-256 {sha256[:12]})")
    return found


def loaded_blocks() -> list[BlocksFile]:
    """Return the files that have been run in this process."""
    return list(_loaded.values())


def _run(path: Path, name: str | Path, before: Mapping[str, Any]) -> tuple[str, ...]:
    """Run the file; return the names of its blocks."""
    try:
        runpy.run_path(str(path), run_name=path.stem)
    except YoloError:
        raise
    except (Exception, SystemExit) as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        line = getattr(error, "lineno", None) or (frames[-1].lineno if frames else None)
        where = f", line {line}" if line else ""
        raise ConfigError(f"--blocks {name}{where}: {type(error).__name__}: {first_line(error)}") from error
    after = registry.snapshot()
    if taken := [block for block, entry in before.items() if after.get(block) != entry]:
        raise ConfigError(f"--blocks {name}: {taken[0]} is a block of this program; choose another name")
    names = tuple(block for block in after if block not in before)
    if not names:
        raise ConfigError(f"--blocks {name}: registers no block; call models.registry.register(rule, Block)")
    return names


def origin_of_blocks(used: Collection[str], recorded: Any, origin: str) -> dict[str, dict[str, str]]:
    """Return what a checkpoint records for the user's blocks among those that a model uses.

    Args:
        used: names of the blocks and designs of a model.
        recorded: the entry `blocks` of its yaml, as an earlier run has recorded it.
        origin: of the yaml, for messages.

    Raises:
        ConfigError: a recorded block whose file has not been given.
    """
    known = {block: file for file in _loaded.values() for block in file.names}
    earlier = recorded if isinstance(recorded, dict) else {}
    for block, entry in earlier.items():
        if block not in used or not isinstance(entry, dict):
            continue
        file, sha256 = str(entry.get("file")), str(entry.get("sha256"))
        if block not in registry.registered():
            raise ConfigError(
                f"{origin}: {block} is a block of {file} (SHA-256 {sha256[:12]}), which is never imported by "
                f"itself; if you trust that file, give --blocks {file}"
            )
        if block in known and known[block].sha256 != sha256:
            LOG.warning(
                f"{origin}: {block} was recorded with SHA-256 {sha256[:12]} of {file}, and "
                f"{known[block].path.name} has {known[block].sha256[:12]}: results may differ"
            )
    return {block: known[block].record() for block in sorted({*used} & {*known})}
