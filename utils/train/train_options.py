"""Every flag of train.py, and what its values must be; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import difflib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from utils.base.errors import ConfigError
from utils.base.paths import ROOT, check_writable, relative_to_cwd, runs_folder
from utils.base.script import parser
from utils.loggers.available import wanted_keys

# A resumed run takes its options from its folder; of the new command line it honours these.
HONOURED_ON_RESUME = (
    "cache",
    "data",
    "device",
    "epochs",
    "loggers",
    "noplots",
    "patience",
    "save_period",
    "save_steps",
    "workers",
)


def build_parser() -> argparse.ArgumentParser:
    """The parser of train.py, its flags grouped by purpose."""
    parse = parser("Train a YOLOv5 detector.", prog="train.py")
    _what(parse.add_argument_group("what to train, on what"))
    _how_long(parse.add_argument_group("how long, and when to go on or stop"))
    _how(parse.add_argument_group("how"))
    _where(parse.add_argument_group("on which machine"))
    _output(parse.add_argument_group("what to write, and where"))
    _search(parse.add_argument_group("search for hyperparameters"))
    _accounts(parse.add_argument_group("where else to log: services, see docs/loggers.md"))
    return parse


def _what(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--weights", default="yolov5s.pt", help="start checkpoint; '' trains from scratch")
    group.add_argument("--cfg", default="", help="model yaml; needed when --weights is ''")
    group.add_argument(
        "--attention", nargs="+", default=[], metavar="KEY=VALUE",
        help="arguments of all large kernel blocks: k=23 design=LKA init=paper dilation=3",
    )  # fmt: skip
    group.add_argument("--data", default="data/shapes.yaml", help="dataset yaml")
    group.add_argument("--download", action="store_true", help="download the dataset where its yaml says")
    group.add_argument("--hyp", default="data/hyps/hyp.scratch-low.yaml", help="hyperparameter yaml")
    group.add_argument("--imgsz", "--img", "--img-size", type=int, default=640, help="image size in pixels")
    group.add_argument("--single-cls", action="store_true", help="treat all classes as one")
    group.add_argument("--rect", action="store_true", help="rectangular batches, no mosaic")
    group.add_argument(
        "--cache", nargs="?", const="ram", help="keep images in ram or on disk (val: these only)"
    )
    group.add_argument(
        "--fast-decode",
        action="store_true",
        help="decode training JPEGs of twice --imgsz and more at a reduced size: faster, other pixels",
    )
    group.add_argument(
        "--shuffle-buffer", type=int, default=5000, help="images among which those of shards are mixed"
    )
    group.add_argument("--image-weights", action="store_true", help="show weak classes more often")
    group.add_argument("--multi-scale", action="store_true", help="vary the image size by half")
    group.add_argument("--quad", action="store_true", help="batches of four images tiled into one")


def _how_long(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--epochs", type=int, default=100, help="epochs in all")
    group.add_argument(
        "--patience", type=int, default=100, help="epochs without progress until the end; 0: never"
    )
    group.add_argument(
        "--resume", nargs="?", const=True, default=False, help="go on from this checkpoint, else the newest"
    )


def _how(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--batch-size", type=int, default=16, help="images in a batch; -1 chooses")
    group.add_argument("--optimizer", choices=("SGD", "Adam", "AdamW"), default="SGD", help="optimizer")
    group.add_argument("--cos-lr", action="store_true", help="cosine schedule of the learning rate")
    group.add_argument("--label-smoothing", type=float, default=0.0, help="epsilon of label smoothing")
    group.add_argument(
        "--freeze", nargs="+", type=int, default=[0], help="10: layers 0-9 stay as they are; 3 5: these two"
    )
    group.add_argument(
        "--graft", choices=("auto", "off"), default="auto", help="how --weights get into --cfg; off: by key"
    )
    group.add_argument("--graft-lr", type=float, default=1.0, help="learning rate of new layers, as a factor")
    group.add_argument(
        "--graft-freeze", type=int, default=0, help="train only what is new for so many epochs at first"
    )
    group.add_argument("--noautoanchor", action="store_true", help="do not fit the anchors to the data")
    group.add_argument(
        "--amp", choices=("auto", "off", "fp16", "bf16"), default="auto",
        help="precision of the forward pass; auto: fp16 on CUDA, else float32",
    )  # fmt: skip
    group.add_argument("--compile", action="store_true", help="compile the model: a slow start, faster steps")
    group.add_argument(
        "--checkpoint-activations", action="store_true", help="half the memory, up to twice the time"
    )
    group.add_argument("--sync-bn", action="store_true", help="batch norm over all processes")
    group.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    group.add_argument("--deterministic", action="store_true", help="only reproducible kernels on CUDA")


def _where(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", default="", help="cpu, mps, or a GPU such as 0; '' takes the best")
    group.add_argument("--workers", type=int, default=8, help="processes that load images, at most")
    group.add_argument("--local_rank", type=int, default=-1, help="for launchers; ignored")


def _output(group: argparse._ArgumentGroup) -> None:
    project = runs_folder("train")
    group.add_argument("--project", default=project, help="folder of all runs")
    group.add_argument("--name", default="exp", help="folder of this run; cfg takes the model yaml's name")
    group.add_argument("--exist-ok", action="store_true", help="write into an existing folder")
    group.add_argument("--save-period", type=int, default=-1, help="keep a checkpoint every so many epochs")
    group.add_argument(
        "--save-steps", type=int, default=0, help="write last.pt after so many updates, too; 0: epochs only"
    )
    group.add_argument("--nosave", action="store_true", help="save only the last epoch")
    group.add_argument("--noval", action="store_true", help="validate only the last epoch")
    group.add_argument("--noplots", action="store_true", help="draw no images")


def _search(group: argparse._ArgumentGroup) -> None:
    hyps = relative_to_cwd(ROOT / "data" / "hyps")
    group.add_argument("--evolve", nargs="?", type=int, const=300, help="evolve for so many generations")
    group.add_argument(
        "--evolve-method", choices=("genetic", "population"), default="genetic",
        help="genetic: a candidate a generation, from the best so far; population: many, in tournaments",
    )  # fmt: skip
    group.add_argument(
        "--evolve-budget",
        type=float,
        metavar="HOURS",
        help="begin no candidate after so long, all calls counted",
    )
    group.add_argument(
        "--evolve-members", type=int, default=50, help="population: candidates in a generation"
    )
    group.add_argument(
        "--evolve_population", default=hyps, help="population: folder of the first individuals"
    )
    group.add_argument(
        "--resume_evolve", help="population: begin with the last of this evolve_population.yaml"
    )
    group.add_argument(
        "--jobs",
        type=int,
        default=0,
        help="candidates at the same time; 0: one, with --ray one a GPU or machine",
    )
    group.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="spread the candidates over a Ray cluster"
    )
    group.add_argument(
        "--bucket", default="", help="copy its tables there: gs://..., s3://..., or a bucket's name"
    )


def _accounts(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--loggers", nargs="+", default=os.environ.get("YOLOV5_LOGGERS", "auto").split(),
        help="auto: those that are installed and set up; none; or which of these",
    )  # fmt: skip
    group.add_argument("--entity", help="process_group or workspace that the run belongs to")
    group.add_argument(
        "--upload_dataset", nargs="?", const=True, default=False, help="upload the dataset (val: this split)"
    )
    group.add_argument(
        "--bbox_interval", type=int, default=-1, help="epochs between images with detections; 0: none"
    )
    group.add_argument("--artifact_alias", default="latest", help="alias of uploaded models and datasets")


def parse_options(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse a command line; `given` lists the options that stand in it rather than being defaults."""
    parse = build_parser()
    opt = parse.parse_args(argv)
    # argparse leaves what a namespace already holds alone, unless the command line says otherwise.
    absent = object()
    seen = parse.parse_args(argv, argparse.Namespace(**dict.fromkeys(vars(opt), absent)))
    opt.given = [name for name, value in vars(seen).items() if value is not absent]
    return opt


def options_from(keywords: dict[str, Any]) -> argparse.Namespace:
    """The defaults, with `keywords` (flags, underscores for dashes) in their place.

    Raises:
        ConfigError: no flag has that name.
    """
    opt = parse_options([])
    names = {"img": "imgsz", "img_size": "imgsz"}  # the aliases that the command line has
    for key, value in keywords.items():
        name = names.get(key, key)
        if name not in vars(opt) or name == "given":
            near = difflib.get_close_matches(name, vars(opt), n=3)
            hint = f"; did you mean {', '.join(near)}?" if near else ""
            raise ConfigError(f"train.run() has no option {key!r}{hint}")
        setattr(opt, name, value)
        opt.given.append(name)
    return opt


def check_options(opt: argparse.Namespace) -> None:
    """Refuse values that cannot work, before anything is loaded or written.

    Raises:
        ConfigError: a value is out of its range, or two flags exclude each other.
    """
    _check_ranges(opt)
    if not opt.resume:
        check_writable(Path(opt.project))
    _check_search(opt)
    if not opt.weights and not opt.cfg:
        raise ConfigError("--weights '' needs --cfg with a model yaml, such as --cfg yolov5s-LSKA.yaml")
    wanted_keys(opt.loggers)
    if opt.upload_dataset not in (False, True, "val", "train"):
        raise ConfigError(f"--upload_dataset {opt.upload_dataset}: expected val, train, or nothing for both")
    if opt.bbox_interval < -1:
        raise ConfigError(f"--bbox_interval {opt.bbox_interval}: expected 0 or more, or -1")
    if opt.cache not in (None, "ram", "disk", "val"):
        raise ConfigError(f"--cache {opt.cache}: expected ram, disk or val")
    if opt.compile and opt.checkpoint_activations:
        raise ConfigError("--compile and --checkpoint-activations exclude each other; use one of the two")
    if opt.image_weights and opt.rect:
        raise ConfigError("--image-weights draws images at random, --rect sorts them; use one of the two")


def _check_search(opt: argparse.Namespace) -> None:
    if opt.evolve is None:
        own = (
            "evolve_method",
            "evolve_budget",
            "evolve_members",
            "evolve_population",
            "resume_evolve",
            "jobs",
            "ray",
            "bucket",
        )
        for name in own:
            if name in opt.given:
                raise ConfigError(f"{flag_of(name)}: only with --evolve")
    ranges = {
        "evolve": (opt.evolve is None or opt.evolve >= 1, "at least 1 generation"),
        "evolve_budget": (opt.evolve_budget is None or opt.evolve_budget > 0, "hours, more than 0"),
        "evolve_members": (opt.evolve_members >= 4, "at least 4"),
        "jobs": (opt.jobs >= 0, "0 or more"),
    }
    _refuse(opt, ranges)


def _check_ranges(opt: argparse.Namespace) -> None:
    ranges: dict[str, tuple[bool, str]] = {
        "epochs": (opt.epochs >= 1, "at least 1"),
        "batch_size": (opt.batch_size >= 1 or opt.batch_size == -1, "at least 1, or -1"),
        "imgsz": (opt.imgsz >= 1, "a number of pixels such as 640"),
        "workers": (opt.workers >= 0, "0 or more"),
        "patience": (opt.patience >= 0, "0 or more"),
        "shuffle_buffer": (opt.shuffle_buffer >= 1, "at least 1"),
        "save_steps": (opt.save_steps >= 0, "0 or more"),
        "seed": (opt.seed >= 0, "0 or more"),
        "graft_lr": (opt.graft_lr > 0, "a factor above 0 such as 10"),
        "graft_freeze": (
            0 <= opt.graft_freeze < opt.epochs,
            f"0 to {opt.epochs - 1}, as --epochs is {opt.epochs}",
        ),
        "label_smoothing": (0 <= opt.label_smoothing < 1, "0 or more and below 1"),
        "freeze": (all(layer >= 0 for layer in opt.freeze), "layer numbers, 0 or more"),
    }
    _refuse(opt, ranges)


def _refuse(opt: argparse.Namespace, ranges: dict[str, tuple[bool, str]]) -> None:
    for name, (fine, expected) in ranges.items():
        if not fine:
            raise ConfigError(f"{flag_of(name)} {getattr(opt, name)}: expected {expected}")


def flag_of(name: str) -> str:
    """`batch_size` -> `--batch-size`, as the command line spells it."""
    return next(action.option_strings[0] for action in build_parser()._actions if action.dest == name)


def to_flags(opt: argparse.Namespace, names: Iterable[str]) -> list[str]:
    """The words of a command line that gives these options their present values."""
    chosen = set(names)
    words: list[str] = []
    for action in build_parser()._actions:
        value, flag = getattr(opt, action.dest, None), action.option_strings[0]
        if action.dest not in chosen or value is None or value is False:
            continue
        if action.nargs == 0 or (action.nargs == "?" and value == action.const):
            words.append(flag)
        elif isinstance(value, list):
            words += [flag, *map(str, value)] if value else []
        else:
            words.append(f"{flag}={value}")  # in one word, as it may begin with a dash
    return words
