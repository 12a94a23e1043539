"""The command `yolov5-lska COMMAND ...`: each command is a script of the checkout, with the same flags."""

from __future__ import annotations

import difflib
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from yolov5_lska import __version__
from yolov5_lska.home import HOME, SCRIPTS, add_to_path

# Name: a script, or a module that is run as with `python -m`, and what it does.
COMMANDS = {
    "train": ("train.py", "train a detector, or search hyperparameters"),
    "val": ("val.py", "measure a model on labelled images"),
    "detect": ("detect.py", "find objects in images, videos and streams"),
    "export": ("export.py", "turn checkpoints into files that other runtimes read"),
    "compare": ("compare.py", "compare models over several seeds"),
    "graft": ("graft.py", "put trained weights into a config with other layers"),
    "visualize": ("visualize.py", "show receptive fields, attention and heat maps"),
    "benchmarks": ("benchmarks.py", "export to all formats, and measure each"),
    "serve": ("serve", "answer requests over HTTP"),
    "get": ("utils.data.get", "download the dataset that a data yaml names"),
    "pack": ("utils.data.pack", "turn a dataset into shards"),
}


def main() -> None:
    """Run what the command line says; exit with 2 where it says nothing that there is."""
    words = sys.argv[1:]
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
    elif name == "--version":
        sys.stdout.write(f"yolov5-lska {__version__}\n")
    elif name in commands():
        _run(COMMANDS[name][0], words[1:])
    else:
        _refuse(name)


def commands() -> dict[str, str]:
    """Commands that are here, and what each does."""
    return {name: what for name, (target, what) in COMMANDS.items() if _file(target).exists()}


def usage() -> str:
    """What `--help` prints."""
    lines = [f"  {name:12}{what}" for name, what in commands().items()]
    return "\n".join(
        [
            "usage: yolov5-lska COMMAND [FLAG ...]",
            "",
            *lines,
            "",
            "`yolov5-lska COMMAND --help` tells its flags. Results go to ./runs.",
            "",
        ]
    )


def _file(target: str) -> Path:
    if target.endswith(".py"):
        return SCRIPTS / target
    place = HOME.joinpath(*target.split("."))
    return place if place.is_dir() else place.with_suffix(".py")


def _run(target: str, words: list[str]) -> None:
    add_to_path()
    sys.argv = [str(_file(target)), *words]
    if target.endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(target, run_name="__main__", alter_sys=True)


def _refuse(name: str) -> NoReturn:
    near = difflib.get_close_matches(name, commands(), n=1)
    hint = f"did you mean {near[0]}?" if near else "see yolov5-lska --help"
    what = f"no command {name!r}" if name else "a command is needed"
    sys.stderr.write(f"yolov5-lska: {what}; {hint}\n")
    sys.exit(2)
