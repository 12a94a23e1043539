"""Find the run that `--resume` means, and restore its options."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.weights import Checkpoint, read_checkpoint
from models.yolo import task_of
from utils.base.errors import ConfigError
from utils.base.inputs import expand_user
from utils.base.log import LOG
from utils.base.options import changed, flag_of, options_from
from utils.base.paths import relative_to_cwd
from utils.base.yaml_io import read_yaml
from utils.tasks.task import get_task
from utils.train.train_options import ACCEPTED_ON_RESUME, TrainOptions

if TYPE_CHECKING:
    from utils.train.distributed import ProcessGroup


_LAUNCH = "launch.txt"  # in a run directory: which torchrun made it


@dataclass(frozen=True)
class ResumedRun:
    """A run to continue: its options, its checkpoint and its directory."""

    options: TrainOptions
    checkpoint: Checkpoint
    folder: Path


def after_restart(options: TrainOptions, process_group: ProcessGroup) -> TrainOptions:
    """Return options that continue the run of this torchrun, if it has restarted the processes.

    torchrun starts all processes again after a failure (--max-restarts) with the same command line.
    """
    if process_group.world == 1 and "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return options
    restarted = process_group.is_main and process_group.restarted
    folder = process_group.broadcast(_folder_of_launch(options) if restarted else None)
    if folder is None:
        return options
    last = folder / "weights" / "last.pt"
    LOG.info(f"torchrun has restarted the processes: continuing in {relative_to_cwd(folder)}")
    if last.is_file():
        return changed(options, resume=str(last), given=(*options.given, "resume"))
    # No checkpoint yet: start again, in the same directory.
    return changed(options, project=str(folder.parent), name=folder.name, exist_ok=True)


def _folder_of_launch(options: TrainOptions) -> Path | None:
    """Return the newest run directory that this torchrun has made before."""
    if isinstance(options.resume, str):
        parents = {expand_user(options.resume).resolve().parents[1].parent}
    else:  # --name may contain folders
        parents = {Path(options.project), (Path(options.project) / options.name).parent}
    files = [file for parent in parents for file in parent.glob(f"*/{_LAUNCH}")]
    made = [file for file in files if file.read_text(errors="replace") == _launch()]
    return max(made, key=lambda file: file.stat().st_mtime).parent if made else None


def note_launch(folder: Path) -> None:
    """Write into a run directory which torchrun made it."""
    if "TORCHELASTIC_RESTART_COUNT" in os.environ:
        (folder / _LAUNCH).write_text(_launch())


def _launch() -> str:
    """Identify a torchrun by machine and process, which live as long as it does."""
    return f"{platform.node()} {os.getppid()} {os.environ.get('TORCHELASTIC_RUN_ID', '')}"


def find_run(options: TrainOptions) -> ResumedRun:
    """Find the run to resume.

    Its options come from its opt.yaml (else from the checkpoint). Of the new command line those in
    `ACCEPTED_ON_RESUME` are used; others that differ are named and ignored.

    Raises:
        ConfigError: there is no such checkpoint, or its training is finished.
    """
    path = newest_checkpoint(Path.cwd()) if options.resume is True else expand_user(str(options.resume))
    if not path.is_file():
        raise ConfigError(f"--resume {path}: no such file; give the last.pt of a run")
    checkpoint = read_checkpoint(path)
    task = get_task(options.model_task)
    task.check(task_of(checkpoint.yaml), f"--resume {path}:", task.scripts[0])
    if checkpoint.training is None:
        raise ConfigError(
            f"--resume {path}: its training is finished, nothing to resume; "
            f"to train further from these weights: {options.prog} --weights {path}"
        )
    LOG.info(f"Resuming training from {path}")
    saved = _saved_options(path, checkpoint)
    merged = _merged(saved, options, path)
    if checkpoint.epoch + 1 > merged.epochs:
        raise ConfigError(
            f"--resume {path}: it has {checkpoint.epoch + 1} epochs already; "
            f"--epochs {merged.epochs} must be that or more"
        )
    in_run_folder = path.resolve().parent.name == "weights"
    folder = path.resolve().parents[1] if in_run_folder else Path(saved.get("save_dir", path.parent))
    return ResumedRun(merged, checkpoint, folder)


def newest_checkpoint(folder: Path) -> Path:
    """Return the last*.pt below `folder` that was written latest; hidden folders are not searched.

    Raises:
        ConfigError: there is none.
    """
    found = []
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if name.startswith("last") and name.endswith(".pt")]
    if not found:
        raise ConfigError(f"--resume: no last.pt below {folder}; give its path")
    return max(found, key=lambda path: path.stat().st_mtime)


def _saved_options(path: Path, checkpoint: Checkpoint) -> dict[str, Any]:
    file = path.resolve().parents[1] / "opt.yaml"
    saved = read_yaml(file) if file.is_file() else checkpoint.opt
    if not saved:
        raise ConfigError(
            f"--resume {path}: {relative_to_cwd(file)} is missing, and the file holds no options"
        )
    return saved


def _merged(saved: dict[str, Any], new: TrainOptions, path: Path) -> TrainOptions:
    """Return the saved options with the accepted new ones; options unknown to the run get their default."""
    known = options_from(type(new), {}).as_dict()
    values = {name: saved.get(name, value) for name, value in known.items()}
    for name in new.given:
        value, old = getattr(new, name), values[name]
        if name == "resume" or value == old:
            continue
        flag = flag_of(type(new), name)
        if name in ACCEPTED_ON_RESUME:
            LOG.info(f"{flag} {value} (the run had {old})")
            values[name] = value
        else:
            LOG.warning(f"{flag} {value} is ignored: a resumed run keeps {old}")
    return type(new)(**values | {"weights": str(path), "cfg": "", "resume": str(path)})
