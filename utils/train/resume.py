"""Find the run that `--resume` means, and bring its options back."""

from __future__ import annotations

import os
import platform
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.weights import Checkpoint, read_checkpoint
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import relative_to_cwd
from utils.base.yaml_io import read_yaml
from utils.train.train_options import HONOURED_ON_RESUME, parse_options

if TYPE_CHECKING:
    from utils.train.distributed import ProcessGroup


_LAUNCH = "launch.txt"  # in a run folder: which torchrun made it


def after_restart(opt: Namespace, process_group: ProcessGroup) -> Namespace:
    """Go on with its run when torchrun has started all processes again (--max-restarts)."""
    if process_group.world == 1 and "TORCHELASTIC_RESTART_COUNT" not in os.environ:
        return opt
    folder = process_group.share(
        _folder_of_launch(opt) if process_group.leads and process_group.restarted else None
    )
    if folder is None:
        return opt
    last = folder / "weights" / "last.pt"
    restarted = Namespace(**vars(opt))
    if last.is_file():
        restarted.resume, restarted.given = str(last), [*opt.given, "resume"]
    else:  # no checkpoint yet: begin again, in the same folder
        restarted.project, restarted.name, restarted.exist_ok = str(folder.parent), folder.name, True
    LOG.info(f"torchrun has restarted the processes: going on in {relative_to_cwd(folder)}")
    return restarted


def _folder_of_launch(opt: Namespace) -> Path | None:
    """The run folder that this torchrun has made before."""
    if isinstance(opt.resume, str):
        places = {Path(opt.resume).expanduser().resolve().parents[1].parent}
    else:
        places = {Path(opt.project), (Path(opt.project) / opt.name).parent}  # --name may have folders in it
    files = [file for place in places for file in place.glob(f"*/{_LAUNCH}")]
    made = [file for file in files if file.read_text(errors="replace") == _launch()]
    return max(made, key=lambda file: file.stat().st_mtime).parent if made else None


def note_launch(folder: Path) -> None:
    """Note in a run folder which torchrun made it."""
    if "TORCHELASTIC_RESTART_COUNT" in os.environ:
        (folder / _LAUNCH).write_text(_launch())


def _launch() -> str:
    """What tells one torchrun from another: machine and process, which live as long as it does."""
    return f"{platform.node()} {os.getppid()} {os.environ.get('TORCHELASTIC_RUN_ID', '')}"


def find_run(opt: Namespace) -> tuple[Namespace, Checkpoint]:
    """The options and the checkpoint of the run to go on with.

    The options come from the run's opt.yaml (else from the checkpoint). Of the new command line those in
    `HONOURED_ON_RESUME` count; others that differ are named and ignored.

    Raises:
        ConfigError: no such checkpoint, or its training is finished.
    """
    path = newest_checkpoint(Path.cwd()) if opt.resume is True else Path(opt.resume).expanduser()
    if not path.is_file():
        raise ConfigError(f"--resume {path}: no such file; give the last.pt of a run")
    checkpoint = read_checkpoint(path)
    if checkpoint.training is None:
        raise ConfigError(
            f"--resume {path}: its training is finished, nothing to resume; "
            f"to train on from these weights: train.py --weights {path}"
        )
    LOG.info(f"Resuming training from {path}")
    merged = _merge(_saved_options(path, checkpoint), opt, path)
    if checkpoint.epoch + 1 > merged.epochs:
        raise ConfigError(
            f"--resume {path}: it has {checkpoint.epoch + 1} epochs already; "
            f"--epochs {merged.epochs} must be that or more"
        )
    return merged, checkpoint


def newest_checkpoint(folder: Path) -> Path:
    """The last*.pt below `folder` that was written latest; hidden folders are not searched.

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


def _merge(saved: dict[str, Any], asked: Namespace, path: Path) -> Namespace:
    """Saved options, those asked for again in their place; options that did not exist get their default."""
    opt = parse_options([])
    for name, value in saved.items():
        if name in vars(opt):
            setattr(opt, name, value)
    for name in asked.given:
        new, old = getattr(asked, name), getattr(opt, name)
        if name == "resume" or new == old:
            continue
        flag = f"--{name.replace('_', '-')}"
        if name in HONOURED_ON_RESUME:
            LOG.info(f"{flag} {new} (the run had {old})")
            setattr(opt, name, new)
        else:
            LOG.warning(f"{flag} {new} is ignored: a resumed run keeps {old}")
    in_run_folder = path.resolve().parent.name == "weights"
    opt.save_dir = str(path.resolve().parents[1] if in_run_folder else saved.get("save_dir", path.parent))
    opt.weights, opt.cfg, opt.resume = str(path), "", str(path)
    return opt
