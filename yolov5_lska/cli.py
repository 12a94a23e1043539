"""The command `yolov5-lska COMMAND ...`: each command runs a script of the project, with the same flags."""

from __future__ import annotations

import difflib
import runpy
import sys
from pathlib import Path
from typing import NoReturn

from yolov5_lska import __version__
from yolov5_lska.home import HOME, SCRIPTS, add_to_path

# Name: (script, or arguments of `python -m`; description).
COMMANDS = {
    "train": ("train.py", "train a detector, or search hyperparameters"),
    "val": ("val.py", "validate a model on labelled images"),
    "detect": ("detect.py", "detect objects in images, videos and streams"),
    "segment train": ("segment/train.py", "train a segmentation model"),
    "segment val": ("segment/val.py", "validate a segmentation model on labelled images"),
    "segment predict": ("segment/predict.py", "segment objects in images, videos and streams"),
    "classify train": ("classify/train.py", "train a classification model"),
    "classify val": ("classify/val.py", "validate a classification model on images in class folders"),
    "classify predict": ("classify/predict.py", "classify images, videos and streams"),
    "export": ("export.py", "export checkpoints to other formats"),
    "compare": ("compare.py", "compare models over several seeds"),
    "graft": ("graft.py", "transfer trained weights to a config with other layers"),
    "visualize": ("visualize.py", "draw receptive fields, attention and heat maps"),
    "benchmarks": ("benchmarks.py", "export to all formats, and benchmark each"),
    "serve": ("serve", "serve a model over HTTP"),
    "get": ("utils.data get", "download the dataset that a yaml describes"),
    "convert": ("utils.data convert", "convert COCO annotations to YOLO polygons"),
    "pack": ("utils.data pack", "pack a dataset into shards"),
    "similar": ("utils.data similar", "list images that are nearly the same in two splits"),
}


def main() -> None:
    """Run a command; exit with status 2 if there is no such command."""
    words = sys.argv[1:]
    name = words[0] if words else ""
    if name in ("-h", "--help"):
        sys.stdout.write(usage())
    elif name == "--version":
        sys.stdout.write(f"yolov5-lska {__version__}\n")
    elif name in commands():
        _run(COMMANDS[name][0], words[1:])
    elif " ".join(words[:2]) in commands():
        _run(COMMANDS[" ".join(words[:2])][0], words[2:])
    else:
        groups = {command.partition(" ")[0] for command in COMMANDS if " " in command}
        _exit_unknown(" ".join(words[:2]) if name in groups else name)


def commands() -> dict[str, str]:
    """Return the commands that are installed, with their descriptions."""
    return {name: what for name, (target, what) in COMMANDS.items() if _file(target).exists()}


def usage() -> str:
    """Return the text of `--help`."""
    lines = [f"  {name:17}{what}" for name, what in commands().items()]
    return "\n".join(
        [
            "usage: yolov5-lska COMMAND [FLAG ...]",
            "",
            *lines,
            "",
            "`yolov5-lska COMMAND --help` lists its flags. Results are written to ./runs.",
            "",
        ]
    )


def _file(target: str) -> Path:
    if target.endswith(".py"):
        return SCRIPTS / target
    return HOME.joinpath(*target.split(" ")[0].split("."), "__main__.py")


def _run(target: str, words: list[str]) -> None:
    add_to_path()
    module, *first = target.split(" ")
    sys.argv = [str(_file(target)), *first, *words]
    if target.endswith(".py"):
        runpy.run_path(sys.argv[0], run_name="__main__")
    else:
        runpy.run_module(module, run_name="__main__", alter_sys=True)


def _exit_unknown(name: str) -> NoReturn:
    group = (
        [command for command in commands() if command.startswith(f"{name.split(' ')[0]} ")] if name else []
    )
    near = group or difflib.get_close_matches(name, commands(), n=1)
    hint = f"did you mean {', '.join(near)}?" if near else "see yolov5-lska --help"
    what = f"no command {name!r}" if name else "a command is needed"
    sys.stderr.write(f"yolov5-lska: {what}; {hint}\n")
    sys.exit(2)
