"""The options of train.py; needs nothing but the standard library."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from utils.base import options
from utils.base.errors import ConfigError
from utils.base.options import BLOCKS_HELP, Options, flag, flag_of
from utils.base.paths import ROOT, relative_to_cwd, runs_folder
from utils.loggers.available import wanted_keys

# A resumed run takes its options from its run directory; of the new command line it accepts these.
ACCEPTED_ON_RESUME = (
    "blocks", "cache", "data", "device", "epochs", "loggers", "noplots", "patience", "save_period",
    "save_steps", "workers",
)  # fmt: skip
# Options that mean something only together with --evolve.
_ONLY_WITH_EVOLVE = (
    "evolve_method", "evolve_budget", "evolve_members", "evolve_population", "resume_evolve", "jobs", "ray",
    "bucket",
)  # fmt: skip

_model = partial(flag, group="model and data")
_length = partial(flag, group="length of the run")
_training = partial(flag, group="training")
_machine = partial(flag, group="machine")
_output = partial(flag, group="output")
_evolution = partial(flag, group="hyperparameter evolution")
_logging = partial(flag, group="experiment tracking, see docs/loggers.md")


@dataclass(frozen=True)
class TrainOptions(Options):
    """Options of train.py."""

    prog, description = "train.py", "Train a YOLOv5 detector."
    model_task: ClassVar[str] = "detect"
    example_cfg: ClassVar[str] = "yolov5s-LSKA.yaml"

    weights: str = _model("yolov5s.pt", "initial weights; '' trains from scratch")
    cfg: str = _model("", "model yaml; required without initial weights")
    attention: list[str] = _model(
        [], "settings of all attention blocks: k=23 design=LKA init=paper dilation=3 r=8", metavar="KEY=VALUE"
    )
    data: str = _model("data/shapes.yaml", "dataset yaml")
    download: bool = _model(False, "download a missing dataset without asking")
    hyp: str | dict[str, Any] = _model("data/hyps/hyp.scratch-low.yaml", "hyperparameter yaml")
    imgsz: int = _model(
        640, "image size (pixels)", aliases=("--img", "--img-size"), between=(1, None),
        expected="a number of pixels such as 640",
    )  # fmt: skip
    single_cls: bool = _model(False, "train as a single-class dataset")
    rect: bool = _model(False, "rectangular training batches, without mosaic")
    cache: str | None = _model(
        None, "cache images in ram (default) or on disk; val: only the validation images", const="ram"
    )
    blocks: str = _model("", BLOCKS_HELP)
    fast_decode: bool = _model(
        False, "decode training JPEGs of at least twice --imgsz at a reduced size: faster, other pixels"
    )
    shuffle_buffer: int = _model(5000, "shuffle buffer (images) for datasets in shards", between=(1, None))
    image_weights: bool = _model(False, "sample images of rare and hard classes more often")
    multi_scale: bool = _model(False, "train on random image sizes, 0.5 to 1.5 times --imgsz")
    quad: bool = _model(False, "quad dataloader: batches of four images tiled into one")

    epochs: int = _length(100, "total number of epochs", between=(1, None))
    patience: int = _length(
        100,
        "stop after this many epochs without a better fitness (early stopping); 0: never",
        between=(0, None),
    )
    resume: str | bool = _length(False, "resume from this checkpoint, or from the newest one", const=True)

    batch_size: int = _training(16, "batch size, over all processes; -1: AutoBatch")
    optimizer: str = _training("SGD", "optimizer", choices=("SGD", "Adam", "AdamW"))
    cos_lr: bool = _training(False, "cosine learning rate schedule")
    label_smoothing: float = _training(0.0, "label smoothing epsilon")
    freeze: list[int] = _training(
        [0], "layers to freeze: 10 freezes layers 0-9, 3 5 freezes these two", between=(0, None),
        expected="layer numbers, 0 or more",
    )  # fmt: skip
    graft: str = _training(
        "auto", "how --weights are loaded into --cfg: aligned by structure, or off: by key",
        choices=("auto", "off"),
    )  # fmt: skip
    graft_lr: float = _training(1.0, "learning rate of new layers, as a factor")
    graft_freeze: int = _training(0, "number of first epochs that train only the new layers")
    noautoanchor: bool = _training(False, "disable AutoAnchor")
    amp: str = _training(
        "auto", "precision of the forward pass (automatic mixed precision); auto: FP16 on CUDA, else FP32",
        choices=("auto", "off", "fp16", "bf16"),
    )  # fmt: skip
    compile: bool = _training(False, "compile the model with torch.compile")
    checkpoint_activations: bool = _training(
        False, "activation checkpointing: about half the memory, up to twice the time"
    )
    sync_bn: bool = _training(False, "SyncBatchNorm over all processes (CUDA only)")
    seed: int = _training(0, "random seed of weights, data order and augmentation", between=(0, None))
    deterministic: bool = _training(False, "use deterministic algorithms on CUDA")

    device: str = _machine("", "cpu, mps, or a CUDA device such as 0; empty: the best available")
    workers: int = _machine(8, "maximum number of dataloader workers", between=(0, None))
    local_rank: int = _machine(-1, "set by distributed launchers; ignored", spelled="--local_rank")

    project: str = _output(factory=lambda: runs_folder("train"), help="folder that contains the run folders")
    name: str = _output(
        "exp", "name of the run folder, numbered if it exists; cfg: the name of the model yaml"
    )
    exist_ok: bool = _output(False, "write into the run folder even if it exists")
    save_period: int = _output(-1, "also write epochN.pt every n epochs; -1: never")
    save_steps: int = _output(
        0, "also write last.pt every n optimizer steps; 0: after epochs only", between=(0, None)
    )
    nosave: bool = _output(False, "write no checkpoint before the end of the training")
    noval: bool = _output(False, "skip validation except after the last epoch")
    noplots: bool = _output(False, "draw no plots")

    evolve: int | None = _evolution(
        None, "evolve hyperparameters for n generations", const=300, between=(1, None),
        expected="at least 1 generation",
    )  # fmt: skip
    evolve_method: str = _evolution(
        "genetic", "genetic: mutate one of the best so far; population: tournaments over generations",
        choices=("genetic", "population"),
    )  # fmt: skip
    evolve_budget: float | None = _evolution(
        None, "start no candidate after this time, summed over all calls", metavar="HOURS"
    )
    evolve_members: int = _evolution(
        50, "population: candidates of a generation", between=(4, None), expected="at least 4"
    )
    evolve_population: str = _evolution(
        factory=lambda: relative_to_cwd(ROOT / "data" / "hyps"),
        help="population: folder of the initial members", spelled="--evolve_population",
    )  # fmt: skip
    resume_evolve: str | None = _evolution(
        None, "population: start from the last generation of this evolve_population.yaml",
        spelled="--resume_evolve",
    )  # fmt: skip
    jobs: int = _evolution(
        0, "candidates trained at the same time; 0: one, with --ray one per GPU or machine", between=(0, None)
    )
    ray: str | None = _evolution(None, "train candidates on a Ray cluster", const="auto", metavar="ADDRESS")
    bucket: str = _evolution("", "copy the result tables to a bucket: gs://..., s3://..., or a bucket name")

    loggers: list[str] = _logging(
        factory=lambda: os.environ.get("YOLOV5_LOGGERS", "auto").split(),
        help="auto: the services that are installed and configured; none; or a list of services",
    )
    entity: str | None = _logging(None, "team or workspace of the run")
    upload_dataset: str | bool = _logging(
        False, "upload the dataset, or only this split", const=True, spelled="--upload_dataset"
    )
    bbox_interval: int = _logging(
        -1, "log predicted boxes every n epochs; 0: never", between=(-1, None), expected="0 or more, or -1",
        spelled="--bbox_interval",
    )  # fmt: skip
    artifact_alias: str = _logging(
        "latest", "alias of uploaded models and datasets", spelled="--artifact_alias"
    )

    def check(self) -> None:
        """Check ranges that depend on other options, and options that exclude each other.

        Raises:
            ConfigError: a value that cannot work.
        """
        self.require("batch_size", self.batch_size >= 1 or self.batch_size == -1, "at least 1, or -1")
        self.require("graft_lr", self.graft_lr > 0, "a factor above 0 such as 10")
        self.require("label_smoothing", 0 <= self.label_smoothing < 1, "0 or more and below 1")
        graft_range = f"0 to {self.epochs - 1}, as --epochs is {self.epochs}"
        self.require("graft_freeze", 0 <= self.graft_freeze < self.epochs, graft_range)
        self.require("cache", self.cache in (None, "ram", "disk", "val"), "ram, disk or val")
        splits = self.upload_dataset in (False, True, "val", "train")
        self.require("upload_dataset", splits, "val, train, or nothing for both")
        budget = self.evolve_budget is None or self.evolve_budget > 0
        self.require("evolve_budget", budget, "hours, more than 0")
        wanted_keys(self.loggers)
        if self.evolve is None and (alone := [name for name in _ONLY_WITH_EVOLVE if name in self.given]):
            raise ConfigError(f"{flag_of(type(self), alone[0])}: only with --evolve")
        if not (self.weights or self.cfg or self.resume):
            flag_name = flag_of(type(self), "weights")
            raise ConfigError(
                f"{flag_name} '' needs --cfg with a model yaml, such as --cfg {self.example_cfg}"
            )
        if self.compile and self.checkpoint_activations:
            raise ConfigError("--compile and --checkpoint-activations exclude each other; use one of the two")
        if self.image_weights and self.rect:
            raise ConfigError("--image-weights samples at random, --rect sorts images; use one of the two")


def parse_options(argv: Sequence[str] | None = None) -> TrainOptions:
    """Parse a command line of train.py."""
    return options.parse_options(TrainOptions, argv)


def options_from(keywords: dict[str, Any]) -> TrainOptions:
    """Make options from the keywords of `train.run`."""
    return options.options_from(TrainOptions, keywords)
