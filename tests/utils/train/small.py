"""A detector of four layers and a loader of random batches, which train in milliseconds."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.amp.grad_scaler import GradScaler

from models.yolo import make_model
from utils.data.loader import Batch
from utils.data.shapes import NAMES, make_shapes
from utils.tasks.task import get_task
from utils.train.hyp import Hyp, check_hyp, scale_gains
from utils.train.loop import TrainConfig
from utils.train.optim import ModelEMA, Schedule, make_optimizer
from utils.train.state import EarlyStopping, Progress, TrainState

SIZE = 64
BATCH = 4
CONFIG: dict[str, Any] = {
    "nc": 2,
    "depth_multiple": 1.0,
    "width_multiple": 1.0,
    "anchors": [[8, 8, 16, 12], [24, 32, 48, 40]],
    "backbone": [[-1, 1, "Conv", [8, 6, 2, 2]], [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[-1, 1, "Conv", [16, 3, 2]], [[2, 3], 1, "Detect", ["nc", "anchors"]]],
}


SEGMENT_CONFIG = deepcopy(CONFIG)
SEGMENT_CONFIG["head"][-1] = [[2, 3], 1, "Segment", ["nc", "anchors", 4, 8]]


def small_set(home: Path, train: int = 8, val: int = 4) -> Path:
    """Draw a dataset of 64 x 64 pixel images below `home`; return its yaml."""
    home.mkdir(exist_ok=True)
    make_shapes(home / "set", train=train, val=val, size=SIZE)
    splits = {"train": "images/train", "val": "images/val"}
    content = {"path": str(home / "set"), **splits, "names": list(NAMES)}
    (home / "data.yaml").write_text(yaml.safe_dump(content))
    return home / "data.yaml"


def with_polygons(home: Path) -> None:
    """Replace the boxes of a set of `small_set` by octagons inside them."""
    octagon = [(0.3, 0), (0.7, 0), (1, 0.3), (1, 0.7), (0.7, 1), (0.3, 1), (0, 0.7), (0, 0.3)]
    for file in sorted((home / "set" / "labels").rglob("*.txt")):
        lines = []
        for line in file.read_text().splitlines():
            index, x, y, w, h = map(float, line.split())
            points = [f"{x + (a - 0.5) * w:.5f} {y + (b - 0.5) * h:.5f}" for a, b in octagon]
            lines.append(f"{int(index)} {' '.join(points)}\n")
        file.write_text("".join(lines))


def small_segmenter(home: Path) -> Path:
    """Write the yaml of a segmentation model like `CONFIG`, with 4 mask prototypes."""
    (home / "segment.yaml").write_text(yaml.safe_dump(SEGMENT_CONFIG))
    return home / "segment.yaml"


def small_models(home: Path) -> tuple[Path, Path]:
    """Write yamls of `CONFIG` as it is, and with an LSKA gate before its last convolution."""
    gated = deepcopy(CONFIG)
    gated["head"] = [[-1, 1, "LSKA", [7]], *gated["head"]]
    gated["head"][-1] = [[3, 4], 1, "Detect", ["nc", "anchors"]]
    (home / "plain.yaml").write_text(yaml.safe_dump(CONFIG))
    (home / "gated.yaml").write_text(yaml.safe_dump(gated))
    return home / "plain.yaml", home / "gated.yaml"


def with_dropping(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config like `CONFIG` whose layers drop random channels and branches in training."""
    *_, last = config["backbone"]
    _, conv, head = *config["head"][:-1], config["head"][-2], config["head"][-1]
    stage = [-1, 1, "VANStage", [last[3][0], 3, 2, {"ratio": 2, "k": 7, "drop_path": 0.3}]]
    rows = [[-1, 1, "nn.Dropout2d", [0.2]], [-1, 1, "LSKA", [7]], conv]
    return {**config, "backbone": [*config["backbone"][:-1], stage], "head": [*rows, [[4, 5], *head[1:]]]}


class DrawnLoader:
    """Random images and boxes, a function of epoch and batch."""

    def __init__(self, batches: int = 4) -> None:
        self.batches = batches
        self.epoch = self.first = 0

    def __len__(self) -> int:
        return self.batches

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        self.epoch, self.first = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        for index in range(self.first, self.batches):
            yield self.batch(self.epoch, index)

    def batch(self, epoch: int, index: int) -> Batch:
        draw = torch.Generator().manual_seed(1000 * epoch + index)
        images = torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), generator=draw, dtype=torch.uint8)
        targets = torch.rand(3 * BATCH, 6, generator=draw)
        targets[:, 0] = torch.arange(BATCH).repeat(3)
        targets[:, 1] = (targets[:, 1] * CONFIG["nc"]).floor()
        targets[:, 2:4] = targets[:, 2:4] * 0.8 + 0.1
        targets[:, 4:] = targets[:, 4:] * 0.4 + 0.1
        return Batch(images, targets, ["a.jpg"] * BATCH, [None] * BATCH)


def make_state(config: dict[str, Any] = CONFIG, **changes: float) -> TrainState:
    """Return the state before the first step; equal calls give equal weights."""
    torch.manual_seed(0)
    model = make_model(config).to(memory_format=torch.channels_last)
    hyp = hyperparameters(**changes)
    gains = {"label_smoothing": 0.0, **scale_gains(hyp, levels=2, nc=2, imgsz=SIZE)}
    return TrainState(
        model=model,
        ema=ModelEMA(model),
        optimizer=make_optimizer(model, "SGD", hyp, BATCH),
        scaler=GradScaler("cuda", enabled=False),
        loss=get_task(model.task).make_loss(model, gains, Namespace(no_overlap=False)),
        stopper=EarlyStopping(),
        progress=Progress(),
    )


def hyperparameters(**changes: float) -> Hyp:
    """Return the default hyperparameters with changes."""
    return check_hyp(changes, "test")


def make_train_config(batches: int = 4, epochs: int = 4, batch_size: int = 64, **changes: Any) -> TrainConfig:
    """Return settings with an optimizer step for each batch, unless `batch_size` is given."""
    schedule = Schedule(hyperparameters(), epochs, batches, batch_size)
    return TrainConfig(schedule, SIZE, 32, **changes)
