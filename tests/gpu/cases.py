"""What the checks run on: seeded models, random batches, drawn datasets and short trainings."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from models.yolo import make_model
from studies import training
from tests.gpu.checks import Context
from tests.known import fill
from utils.data.loader import Batch
from utils.data.shapes import NAMES, make_class_shapes, make_shapes
from utils.loggers.callbacks import CallbackList
from utils.tasks.task import get_task
from utils.train.hyp import check_hyp, scale_gains
from utils.train.loop import TrainConfig, train_one_epoch
from utils.train.optim import ModelEMA, Schedule, make_optimizer
from utils.train.run_dir import TrainResult
from utils.train.state import EarlyStopping, Progress, TrainState

CFG = {
    "detect": "yolov5n-LSKA.yaml", "segment": "yolov5n-seg-LSKA.yaml", "classify": "yolov5n-cls-LSKA.yaml",
}  # fmt: skip
NC = len(NAMES)
OBJECTS = 8  # in each random image


class Losses(NamedTuple):
    """The rows of results.csv of a short training, and its result."""

    rows: list[dict[str, float]]
    result: TrainResult


@contextmanager
def full_precision() -> Iterator[None]:
    """Compute in FP32 as the CPU does: convolutions and products of matrices are TF32 by default on CUDA."""
    kinds: tuple[Any, ...] = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    try:
        yield
    finally:
        for kind, value in zip(kinds, before, strict=True):
            kind.allow_tf32 = value


def seeded_model(cfg: str, device: torch.device) -> Any:
    """Return a model with the same weights on every device, made on the CPU from the names of its tensors."""
    model: Any = make_model(cfg, nc=NC)
    fill(model, 0)
    return model.to(device).to(memory_format=torch.channels_last)


def seeded_images(count: int, size: int) -> Tensor:
    """Return images (count, 3, size, size) uint8, on the CPU."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)


def seeded_batch(task: str, count: int, size: int, seed: int = 0) -> Batch:
    """Return a batch with random labels of a task, on the CPU."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)
    paths: list[str] = ["a.jpg"] * count
    shapes: list[Any] = [None] * count
    classes = torch.randint(0, NC, (count * OBJECTS,), generator=draw)
    if task == "classify":
        return Batch(images, torch.stack((torch.arange(count), classes[:count]), 1).float(), paths, shapes)
    image = torch.arange(count).repeat_interleave(OBJECTS)
    boxes = torch.rand(count * OBJECTS, 4, generator=draw) * torch.tensor((0.8, 0.8, 0.4, 0.4)) + 0.1
    targets = torch.cat((torch.stack((image, classes), 1).float(), boxes), 1)
    side = size // 4
    masks = torch.randint(0, OBJECTS + 1, (count, side, side), generator=draw).to(torch.uint8)
    return Batch(images, targets, paths, shapes, masks if task == "segment" else None)


class SeededLoader:
    """The same few batches in every epoch, in page-locked memory if the device is CUDA."""

    def __init__(self, context: Context, task: str, batches: int) -> None:
        made = [seeded_batch(task, context.batch, context.imgsz, seed) for seed in range(min(batches, 4))]
        if context.on_cuda:
            made = [batch._replace(images=batch.images.pin_memory()) for batch in made]
        self.made, self.batches, self.first = made, batches, 0

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Start at a batch."""
        self.first = first_batch

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self.first, self.batches):
            yield self.made[index % len(self.made)]


def train_state(context: Context, cfg: str, precision: torch.dtype | None = None) -> TrainState:
    """Return the state before the first step of a training with SGD, as train.py builds it."""
    model = seeded_model(cfg, context.device)
    task, hyp = get_task(model.task), check_hyp({}, "tests.gpu")
    if task.draws_boxes:
        gains = {"label_smoothing": 0.0, **scale_gains(hyp, levels=3, nc=NC, imgsz=context.imgsz)}
    else:
        gains = {"label_smoothing": 0.1}
    return TrainState(
        model=model,
        ema=ModelEMA(model),
        optimizer=make_optimizer(model, "SGD", hyp, context.batch),
        scaler=GradScaler("cuda", enabled=precision == torch.float16),
        loss=task.make_loss(model, gains, Namespace(no_overlap=False)),
        stopper=EarlyStopping(),
        progress=Progress(),
        precision=precision,
    )


def train_steps(context: Context, state: TrainState, loader: SeededLoader) -> list[float]:
    """Train on all batches with our loop, with an optimizer step for each; return the mean losses."""
    task, batches = get_task(state.model.task), len(loader)
    schedule = Schedule(check_hyp({}, "tests.gpu"), epochs=10, batches=batches, batch_size=64)
    config = TrainConfig(schedule, context.imgsz, 32, row=task.row_style, normalize=task.normalize)
    updates, state.progress = state.ema.updates, Progress()
    batches_of_any_task: Any = loader
    losses = train_one_epoch(0, state, batches_of_any_task, config, CallbackList())
    assert state.ema.updates - updates == batches, f"{state.ema.updates - updates} steps of {batches}"
    return losses


def dataset(context: Context, task: str) -> Path:
    """Draw the dataset of a task unless it is there; return its yaml, or its folder of classes."""
    train, val = context.images, max(context.images // 4, 4)
    if task == "classify":
        return make_class_shapes(context.home / "classes", train=train // 4, val=val // 4, size=context.imgsz)
    return _shapes(context, task, train, val)


def _shapes(context: Context, name: str, train: int, val: int) -> Path:
    """Draw a dataset of a detector or a segmentation model; return its yaml."""
    folder = context.home / f"shapes-{name}"
    make_shapes(folder, train=train, val=val, size=context.imgsz, polygons=name == "segment")
    content = {"path": str(folder), "train": "images/train", "val": "images/val", "names": list(NAMES)}
    file = context.home / f"{name}.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def flags(context: Context, task: str, name: str, **changes: Any) -> dict[str, Any]:
    """Return the keywords of a short training from scratch, in FP32 unless `amp` is given."""
    known = {
        "weights": "", "cfg": CFG[task], "data": str(dataset(context, task)), "imgsz": context.imgsz,
        "epochs": 1, "batch_size": context.batch, "optimizer": "SGD", "workers": 0, "amp": "off",
        "device": context.flag, "noplots": True, "project": str(context.home / "runs"), "name": name,
    }  # fmt: skip
    if task != "classify":
        known["noautoanchor"] = True
    return known | changes


def run_training(task: str, keywords: dict[str, Any]) -> Losses:
    """Train as the train script of a task does."""
    result = training.run(get_task(task).train_options(), dict(keywords))
    return Losses(read_rows(result.save_dir), result)


def read_rows(folder: Path) -> list[dict[str, float]]:
    """Read results.csv."""
    with (folder / "results.csv").open(newline="") as file:
        return [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]


class Good(NamedTuple):
    """A detector that finds shapes, on CUDA; in a rehearsal it has hardly learned."""

    weights: Path
    data: Path  # yaml
    images: Path  # of the validation


def good_detector(context: Context) -> Good:
    """Train a detector, once for all checks that need one."""
    if "good" not in context.cache:
        train, val, epochs = (256, 64, 25) if context.on_cuda else (8, 4, 1)
        data = _shapes(context, "good", train, val)
        more = {"hyp": "hyp.shapes.yaml", "optimizer": "AdamW", "noval": True, "amp": "auto"}
        settings = flags(context, "detect", "good", epochs=epochs, data=str(data), workers=4, **more)
        best = run_training("detect", settings).result.best
        assert best is not None, "the training wrote no best.pt"
        images = context.home / "shapes-good" / "images" / "val"
        context.cache["good"] = Good(best, data, images)
    made: Good = context.cache["good"]
    return made
