"""Options of compare.py, and the models that a command line compares."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from utils.base.errors import ConfigError
from utils.base.options import Options, changed, flag
from utils.base.paths import runs_folder
from utils.train.train_options import TrainOptions, parse_options
from utils.val.val_options import ValOptions
from utils.val.val_options import parse_options as parse_val_options

# Flags of train.py that compare.py sets for each run.
_SET_FOR_EACH_RUN = ("seed", "project", "name", "exist_ok", "resume", "evolve")

_models = partial(flag, group="what to compare")
_how = partial(flag, group="how")
_output = partial(flag, group="output")


@dataclass(frozen=True)
class CompareOptions(Options):
    """Options of compare.py; further flags are passed on to train.py or val.py."""

    prog = "compare.py"
    description = """Compare models, with statistics.
With --cfg: train every model with every seed on the same images in the same order (flags of train.py may
follow, for all models), measure, and compare pairs of runs with the same seed. Without --cfg: compare
--weights on the same images (flags of val.py may follow)."""

    cfg: list[str] = _models(
        [], "model yamls to train; 'X.yaml --graft off' adds flags for one model", metavar="YAML"
    )
    weights: list[str] | None = _models(
        None, "with --cfg: weights that all models start from; without: model paths to compare"
    )
    seeds: list[int] = _models([0, 1, 2], "random seeds; each model is trained with each", between=(0, None))
    labels: list[str] = _models([], "names of the models in tables and plots")
    report: str | None = _models(
        None, "write the report of an earlier comparison again, from its csv files", metavar="FOLDER"
    )
    jobs: int = _how(1, "number of trainings at the same time", between=(1, None))
    device: str = _how(
        "",
        "cpu, mps, or a CUDA device such as 0; 0,1: trainings use these in turn; empty: the best available",
    )
    ray: str | None = _how(None, "train on a Ray cluster", const="auto", metavar="ADDRESS")
    threads: int = _how(0, "CPU threads of each training; 0: cores / --jobs", between=(0, None))
    rounds: int = _how(50, "forward passes of each model to measure latency; 0: none", between=(0, None))
    resamples: int = _how(2000, "number of bootstrap resamples", between=(100, None))
    examples: int = _how(
        4, "number of example images, those on which the models disagree most", between=(0, None)
    )
    project: str = _output(
        help="folder that contains the comparisons and the runs that they share",
        factory=partial(runs_folder, "compare"),
    )
    name: str = _output("exp", "name of the folder of this comparison, numbered if it exists")
    exist_ok: bool = _output(False, "write into that folder even if it exists")

    def check(self) -> None:
        """Check the seeds, and that there is anything to compare."""
        self.require("seeds", 0 < len(set(self.seeds)) == len(self.seeds), "different integers of at least 0")
        if not self.cfg and not self.weights and not self.report:
            raise ConfigError("give --cfg with model yamls to train, or --weights with models to compare")

    @property
    def first_device(self) -> str:
        """The device for everything that runs once."""
        return self.device.split(",")[0]


@dataclass(frozen=True)
class Variant:
    """A model of a comparison, with its flags of train.py."""

    label: str
    flags: tuple[str, ...]  # of train.py, --cfg first; they follow the flags of all variants
    options: TrainOptions = field(compare=False)


@dataclass(frozen=True)
class Comparison:
    """Models to train, and the seeds of each."""

    seeds: tuple[int, ...]
    common: tuple[str, ...]  # flags of train.py for all variants
    variants: tuple[Variant, ...]


def read_comparison(options: CompareOptions, rest: Sequence[str]) -> Comparison:
    """Parse and check the whole command line of each model that is to be trained.

    Args:
        options: of compare.py.
        rest: flags of train.py.

    Raises:
        ConfigError: flags of train.py that are not valid, or that compare.py sets.
    """
    common = tuple(rest)
    if options.weights is not None:
        options.require("weights", len(options.weights) == 1, "one file that all models of --cfg start from")
        common += ("--weights", options.weights[0])
    flags = [("--cfg", *_split(text)) for text in options.cfg]
    labels = [" ".join(words[1:]).replace(".yaml", "") for words in flags]
    if len(set(labels)) != len(labels):
        raise ConfigError(f"--cfg: {max(labels, key=labels.count)} is given twice; give it other flags")
    if options.labels and (len(options.labels) != len(labels) or len(set(options.labels)) != len(labels)):
        raise ConfigError(f"--labels: expected {len(labels)} different names, one for each --cfg")
    variants = tuple(
        Variant(label, words, _train_options([*common, *words], options.first_device))
        for label, words in zip(options.labels or labels, flags, strict=True)
    )
    return Comparison(tuple(options.seeds), common, variants)


def _train_options(words: Sequence[str], device: str) -> TrainOptions:
    """Parse the command line of one run, which uses one device."""
    options = parse_options(words)
    for name in _SET_FOR_EACH_RUN:
        if name in options.given:
            hint = {"seed": "use --seeds", "evolve": "use train.py"}.get(name, "compare.py sets it")
            raise ConfigError(f"--{name.replace('_', '-')}: not available in a comparison; {hint}")
    return changed(options, device=device)


def _split(text: str) -> list[str]:
    """Split one --cfg like a shell; the path of an existing file may have spaces."""
    if Path(text).is_file():
        return [text]
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"--cfg {text}: {str(error).lower()}") from error
    if not words:
        raise ConfigError("--cfg '': expected a model yaml, optionally followed by flags of train.py")
    return words


def read_val_options(options: CompareOptions, rest: Sequence[str]) -> ValOptions:
    """Parse the flags of val.py for a comparison of weight files."""
    words = [*rest, "--weights", *(options.weights or ())]
    return parse_val_options([*words, "--device", options.device] if options.device else words)
