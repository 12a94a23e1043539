"""Everything of a run that changes while it trains, and how it is saved and restored."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from utils.train.ema import ModelEMA
from utils.train.optim import restore_optimizer
from utils.train.stopping import EarlyStopping

if TYPE_CHECKING:
    from models.yolo import DetectionModel
    from utils.ops.loss import DetectionLoss


@dataclass
class Progress:
    """Counters of a run; between two epochs they say all that the tensors do not."""

    epoch: int = 0  # the first epoch that is not complete
    first_batch: int = 0  # ... and its first batch that is not trained
    last_update: int = -1  # step, in batches over the run, of the latest update of the weights
    best_fitness: float = 0.0
    fitness: float = 0.0  # of the latest validation
    metrics: list[float] = field(default_factory=list)  # P, R, mAP50, mAP50-95, box, obj, cls of it
    maps: list[float] = field(default_factory=list)  # ... and the mAP50-95 of each class

    def until(self, epochs: int) -> range:
        """The epochs that are left."""
        return range(self.epoch, epochs)


@dataclass
class TrainState:
    """A model in training with all that has to come along for its training to go on."""

    model: DetectionModel
    ema: ModelEMA
    optimizer: Optimizer
    scaler: GradScaler
    loss: DetectionLoss
    stopper: EarlyStopping
    progress: Progress

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers from which `load_state_dict` goes on exactly."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.state_dict(),
            "updates": self.ema.updates,
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "loss": self.loss.state_dict(),
            "stopper": self.stopper.state_dict(),
            "progress": asdict(self.progress),
            "random": random_state(self.device),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave."""
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"], state["updates"])
        restore_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.loss.load_state_dict(state["loss"])
        self.stopper.load_state_dict(state["stopper"])
        self.progress = Progress(**state["progress"])
        restore_random_state(state["random"], self.device)


def random_state(device: torch.device) -> dict[str, Any]:
    """States of the global generators; our own code draws from none, but a listener may."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [kind, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the global generators back where `random_state` found them."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
