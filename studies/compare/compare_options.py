"""The flags of compare.py; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from utils.base.errors import ConfigError
from utils.base.paths import runs_folder
from utils.base.script import parser
from utils.train.train_options import check_options, parse_options
from utils.val.val_options import ValOptions
from utils.val.val_options import parse_options as parse_val_options

DESCRIPTION = """Compare models and say what the numbers allow.
With --cfg: train every model with every seed on the same images in the same order (any flag of train.py
may follow, for all of them), then measure and compare, paired by seed. Without --cfg: compare --weights
files on the same images (any flag of val.py may follow), paired by image."""
# Flags of train.py that compare.py sets for each run.
_OWN_IN_RUNS = ("seed", "project", "name", "exist_ok", "resume", "evolve")


@dataclass(frozen=True)
class Variant:
    """One of the models that are compared."""

    label: str
    flags: tuple[str, ...]  # of train.py, --cfg first; those of all variants come before them
    options: Namespace = field(compare=False)


@dataclass(frozen=True)
class Comparison:
    """A command line of compare.py that trains."""

    opt: Namespace  # compare.py's own flags
    common: tuple[str, ...]  # flags of train.py for all variants
    variants: tuple[Variant, ...]


def build_parser() -> argparse.ArgumentParser:
    """The parser of compare.py's own flags."""
    parse = parser(DESCRIPTION, prog="compare.py")
    parse.allow_abbrev = False  # the rest belongs to train.py or val.py, which complete abbreviations
    what = parse.add_argument_group("what to compare")
    what.add_argument(
        "--cfg", nargs="+", default=[], metavar="YAML", help="models; 'X.yaml --graft off' adds flags to one"
    )
    what.add_argument(
        "--weights",
        nargs="+",
        default=None,
        help="start of all --cfg; without --cfg: files to compare",
    )
    what.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2], help="train once with each")
    what.add_argument("--labels", nargs="+", default=[], help="names of the models in tables and plots")
    what.add_argument("--report", metavar="FOLDER", help="make the report of an earlier comparison again")
    how = parse.add_argument_group("how")
    how.add_argument("--jobs", type=int, default=1, help="trainings at the same time")
    how.add_argument("--device", default="", help="cpu, a GPU such as 0, or several to share out: 0,1")
    how.add_argument(
        "--ray", nargs="?", const="auto", metavar="ADDRESS", help="spread the trainings over a Ray cluster"
    )
    how.add_argument("--threads", type=int, default=0, help="CPU threads of a training; 0: cores / --jobs")
    how.add_argument(
        "--rounds", type=int, default=50, help="runs of each model that measure latency; 0: none"
    )
    how.add_argument("--resamples", type=int, default=2000, help="of the bootstrap")
    how.add_argument("--examples", type=int, default=4, help="images to show where models disagree most")
    out = parse.add_argument_group("what to write, and where")
    project = runs_folder("compare")
    out.add_argument("--project", default=project, help="folder of comparisons, and of the runs they share")
    out.add_argument("--name", default="exp", help="folder of this comparison")
    out.add_argument("--exist-ok", action="store_true", help="write into an existing folder")
    return parse


def parse_compare(argv: Sequence[str] | None = None) -> tuple[Namespace, list[str]]:
    """compare.py's own options, and the flags that it does not know.

    Raises:
        ConfigError: values that cannot be.
    """
    opt, rest = build_parser().parse_known_args(argv)
    ranges = {
        "jobs": (opt.jobs >= 1, "at least 1"),
        "threads": (opt.threads >= 0, "0 or more"),
        "rounds": (opt.rounds >= 0, "0 or more"),
        "resamples": (opt.resamples >= 100, "at least 100"),
        "examples": (opt.examples >= 0, "0 or more"),
        "seeds": (
            len(set(opt.seeds)) == len(opt.seeds) and min(opt.seeds) >= 0,
            "different ones from 0 on",
        ),
    }
    for name, (fine, expected) in ranges.items():
        if not fine:
            raise ConfigError(f"--{name} {getattr(opt, name)}: expected {expected}")
    if not opt.cfg and not opt.weights and not opt.report:
        raise ConfigError("give --cfg with model yamls to train, or --weights with files to compare")
    return opt, rest


def read_comparison(opt: Namespace, rest: Sequence[str]) -> Comparison:
    """The models of a comparison that trains, each with its whole command line checked.

    Raises:
        ConfigError: flags of train.py that cannot be used here, or cannot be together.
    """
    common = list(rest)
    if opt.weights is not None:
        if len(opt.weights) != 1:
            raise ConfigError(f"--weights {' '.join(opt.weights)}: with --cfg, one file that all start from")
        common += ["--weights", opt.weights[0]]
    variants = []
    for text in opt.cfg:
        flags = ("--cfg", *_words(text))
        options = parse_options([*common, *flags])
        options.device = opt.device.split(",")[0]  # one process a run, each on one device
        for name in _OWN_IN_RUNS:
            if name in options.given:
                hint = {"seed": "--seeds", "evolve": "that is for train.py"}.get(name, "compare.py sets it")
                raise ConfigError(f"--{name.replace('_', '-')}: not for all runs of a comparison; {hint}")
        check_options(options)
        variants.append(Variant(" ".join(flags[1:]).replace(".yaml", ""), flags, options))
    labels = [variant.label for variant in variants]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"--cfg: {max(labels, key=labels.count)} is given twice; give it other flags")
    if opt.labels and (len(opt.labels) != len(variants) or len(set(opt.labels)) != len(variants)):
        raise ConfigError(f"--labels: {len(variants)} different names are needed, one for each --cfg")
    named = [
        Variant(label, variant.flags, variant.options)
        for label, variant in zip(opt.labels, variants, strict=False)
    ]
    return Comparison(opt, tuple(common), tuple(named or variants))


def _words(text: str) -> list[str]:
    """The words of one --cfg, as a shell splits them; a file whose name has spaces is one word."""
    if Path(text).is_file():
        return [text]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--cfg {text}: {str(error).lower()}") from error
    if not words:
        raise ConfigError("--cfg '': expected a model yaml, and flags of train.py behind it if need be")
    return words


def read_val_options(opt: Namespace, rest: Sequence[str]) -> ValOptions:
    """Options of val.py for a comparison of weight files."""
    argv = [*rest, "--weights", *opt.weights]
    return parse_val_options([*argv, "--device", opt.device] if opt.device else argv)
