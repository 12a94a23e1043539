"""Options of compare.py, and the models that a command line compares."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from studies.model_tasks import common_task, task_of_config, task_of_file
from utils.base.errors import ConfigError
from utils.base.options import Options, changed, flag, parse_known_options
from utils.base.paths import runs_folder
from utils.tasks.task import Task
from utils.train.train_options import TrainOptions
from utils.val.val_options import ValOptions
from utils.val.val_options import parse_options as parse_val_options

# Flags of train.py that compare.py sets for each run.
_SET_FOR_EACH_RUN = ("seed", "project", "name", "exist_ok", "resume", "evolve")

_REPEATABLE = ("--cfg", "--weights")  # --cfg a.yaml --cfg b.yaml is --cfg a.yaml b.yaml

_models = partial(flag, group="what to compare")
_how = partial(flag, group="how")
_output = partial(flag, group="output")


@dataclass(frozen=True)
class CompareOptions(Options):
    """Options of compare.py; further flags are passed on to the train or val script of the models' task."""

    prog = "compare.py"
    description = """Compare models, with statistics.
With --cfg: train every model with every seed on the same images in the same order (flags of train.py may
follow, for all models), measure, and compare pairs of runs with the same seed. Without --cfg: compare
--weights, or --predictions, on the same images (flags of val.py may follow). Segmentation and classification
models take the flags of their own scripts, such as segment/train.py and classify/val.py."""

    cfg: list[str] = _models(
        [], "model yamls to train; 'X.yaml --graft off' adds flags for one model", metavar="YAML"
    )
    weights: list[str] | None = _models(
        None, "with --cfg: weights that all models start from; without: model paths to compare"
    )
    predictions: list[str] = _models(
        [],
        "COCO results files to compare, of models of any framework, such as those of val.py --save-json",
        metavar="JSON",
    )
    seeds: list[int] = _models([0, 1, 2], "random seeds; each model is trained with each", between=(0, None))
    folds: int = _models(
        0,
        "cross-validation: split the images of train and val into this many folds, anew for each seed, and "
        "train each model once for each fold; 0: the splits of the dataset",
        between=(0, None),
    )
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
    metric: str = _how(
        "", "metric that conclusions and plots are about, as in results.csv, such as mAP50 or 'AP small'"
    )
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
        if not self.cfg and not self.weights and not self.report and not self.predictions:
            raise ConfigError("give --cfg with model yamls to train, or --weights with models to compare")
        if self.predictions and (self.cfg or self.weights):
            other = "cfg" if self.cfg else "weights"
            raise ConfigError(f"--predictions: are compared with each other only; leave out --{other}")
        self.require("folds", self.folds != 1, "0, or at least 2")
        if self.folds and not self.cfg:
            raise ConfigError("--folds: needs models to train; give them with --cfg")

    @property
    def first_device(self) -> str:
        """The device for everything that runs once."""
        return self.device.split(",")[0]


@dataclass(frozen=True)
class Variant:
    """A model of a comparison, with its flags of the train script."""

    label: str
    flags: tuple[str, ...]  # --cfg first; they follow the flags of all variants
    options: TrainOptions = field(compare=False)


@dataclass(frozen=True)
class Comparison:
    """Models to train, and the seeds of each."""

    seeds: tuple[int, ...]
    common: tuple[str, ...]  # flags of the train script for all variants
    variants: tuple[Variant, ...]
    project: Path  # folder of all comparisons
    folds: int = 0  # of a cross-validation; 0: the splits of the dataset


def parse_command(argv: Sequence[str]) -> tuple[CompareOptions, list[str]]:
    """Parse a command line of compare.py; return its options, and the flags for the train or val script."""
    return parse_known_options(CompareOptions, _joined(argv))


def _joined(argv: Sequence[str]) -> list[str]:
    """Collect the values of repeated flags; argparse would use the last occurrence only."""
    values: dict[str, list[str]] = {}
    others: list[str] = []
    into = others
    for word in argv:
        name, equals, value = word.partition("=")
        if name in _REPEATABLE:
            into = values.setdefault(name, [])
            if equals:
                into.append(value)
        else:
            into = others if word.startswith("-") else into
            into.append(word)
    return [*others, *(word for name, words in values.items() for word in (name, *words))]


def read_comparison(options: CompareOptions, rest: Sequence[str]) -> Comparison:
    """Parse and check the whole command line of each model that is to be trained.

    Args:
        options: of compare.py.
        rest: flags of the train script of the models' task.

    Raises:
        ConfigError: models of different tasks; flags that are not valid, or that compare.py sets.
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
    task = common_task({words[1]: task_of_config(words[1]) for words in flags}, "--cfg")
    variants = tuple(
        Variant(label, words, _train_options(task, [*common, *words], options.first_device))
        for label, words in zip(options.labels or labels, flags, strict=True)
    )
    if options.folds and task.name == "classify":
        raise ConfigError("--folds: is for detection and segmentation; datasets of classes are folders")
    return Comparison(tuple(options.seeds), common, variants, Path(options.project), options.folds)


def _train_options(task: Task, words: Sequence[str], device: str) -> TrainOptions:
    """Parse the command line of one run, which uses one device."""
    options = task.parse_train_options(words)
    for name in _SET_FOR_EACH_RUN:
        if name in options.given:
            hint = {"seed": "use --seeds", "evolve": f"use {task.scripts[0]}"}.get(name, "compare.py sets it")
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
    """Parse the flags of the val script of the models' task, for a comparison of weight files.

    Raises:
        ConfigError, DataError: models of different tasks; files that are missing or damaged.
    """
    weights = options.weights or []
    if options.predictions:
        return parse_val_options([*rest, "--device", options.first_device], ValOptions)
    task = common_task({file: task_of_file(file, options.device) for file in weights}, "--weights")
    words = [*rest, "--weights", *weights]
    words += ["--device", options.device] if options.device else []
    return parse_val_options(words, task.val_options())
