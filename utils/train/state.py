"""Stop when the model has not become better for a while."""

from __future__ import annotations

import math
import random
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from models.weights import model_record
from utils.base.errors import DataError
from utils.base.log import LOG
from utils.train.distributed import ProcessGroup
from utils.train.loss_meter import LossMeter
from utils.train.optim import ModelEMA, restore_optimizer

if TYPE_CHECKING:
    from models.yolo import DetectionModel
    from utils.ops.loss import DetectionLoss
    from utils.val.accumulator import EvalResult


@dataclass
class EarlyStopping:
    """Watch the fitness of each epoch; a patience of 0 never stops."""

    patience: int = 100
    best_fitness: float = -1.0
    best_epoch: int = 0
    possible_stop: bool = False  # the next epoch may be the last: validate it even with --noval

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Note an epoch's fitness; True when training should end with it."""
        if fitness > self.best_fitness:
            self.best_epoch, self.best_fitness = epoch, fitness
        self.possible_stop = self.exhausted(epoch + 1)
        return self.exhausted(epoch)

    def exhausted(self, epoch: int) -> bool:
        """Whether the patience is over if this epoch brings nothing better."""
        return epoch - self.best_epoch >= (self.patience or math.inf)

    def describe(self) -> str:
        """Why training ends, in words."""
        return (
            f"Stopping early: no better model in the last {self.patience} epochs. The best came from epoch "
            f"{self.best_epoch} and is kept as best.pt. --patience sets how long to wait; 0 is forever."
        )

    def state_dict(self) -> dict[str, float | int | bool]:
        """What a resumed run needs; the patience may be changed on the way."""
        return {
            "best_fitness": self.best_fitness,
            "best_epoch": self.best_epoch,
            "possible_stop": self.possible_stop,
        }

    def load_state_dict(self, state: dict[str, float | int | bool]) -> None:
        """Go on from what `state_dict` gave."""
        self.best_fitness = float(state["best_fitness"])
        self.best_epoch = int(state["best_epoch"])
        self.possible_stop = bool(state["possible_stop"])


@dataclass
class Progress:
    """Counters of a run; between two updates of the weights they say all that the tensors do not."""

    epoch: int = 0  # the first epoch that is not complete
    first_batch: int = 0  # ... and its first batch that is not trained
    losses: list[float] = field(default_factory=list)  # sums of its losses over the batches before
    last_update: int = -1  # step, in batches over the run, of the latest update of the weights
    best_fitness: float = 0.0
    fitness: float = 0.0  # of the latest validation
    maps: list[float] = field(default_factory=list)  # mAP50-95 of each class then

    def note(self, first_batch: int, meter: LossMeter) -> None:
        """Note how far the epoch is."""
        self.first_batch, self.losses = first_batch, meter.sums()

    def record(self, epoch: int, result: EvalResult | None) -> bool:
        """Note that an epoch is complete; True if its validation is the best so far, or as good."""
        self.epoch, self.first_batch, self.losses = epoch + 1, 0, []
        if result is None:
            return False
        self.fitness = result.fitness()
        self.maps = [float(value) for value in result.filled_maps]
        best = self.fitness >= self.best_fitness
        if best:
            self.best_fitness = self.fitness
        return best


@dataclass(frozen=True)
class Origin:
    """Keys of a model's tensors by where they came from; a head for other classes is in neither list."""

    transferred: list[str] = field(default_factory=list)  # whole, from the weights it was started with
    new: list[str] = field(default_factory=list)


@dataclass
class TrainState:
    """A model in training with all that has to come along for its training to go on."""

    model: DetectionModel
    ema: ModelEMA[DetectionModel]
    optimizer: Optimizer
    scaler: GradScaler
    loss: DetectionLoss
    stopper: EarlyStopping
    progress: Progress
    origin: Origin = field(default_factory=Origin)
    precision: torch.dtype | None = None  # of the forward pass; None: float32
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    stopped: bool = False  # a callback has asked for the end

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device

    @property
    def half(self) -> bool:
        """Whether forward passes run in float16, in training and validation."""
        return self.precision == torch.float16

    def epochs_left(self, epochs: int) -> range:
        """The epochs still to be trained; none where early stopping has already ended the run."""
        done = self.progress.epoch
        return range(done, done if self.stopper.exhausted(done - 1) else epochs)

    def content(self) -> dict[str, Any]:
        """Content for a checkpoint, in float32 on the CPU, from which `restore` goes on exactly.

        All processes of a process_group have to ask for it; those that do not lead get nothing.
        """
        states = self.process_group.gather(random_state(self.device))
        if not self.process_group.leads:
            return {}
        return {
            "epoch": self.progress.epoch - 1,  # the last one that is complete, as in the original
            "best_fitness": self.progress.best_fitness,
            "model": model_record(self.model),
            "ema": model_record(self.ema.model),
            "updates": self.ema.updates,
            "optimizer": on_cpu(self.optimizer.state_dict()),
            "scaler": self.scaler.state_dict(),
            "loss": on_cpu(self.loss.state_dict()),
            "stopper": self.stopper.state_dict(),
            "progress": asdict(self.progress),
            "origin": asdict(self.origin),
            "random": states,
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Go on from what `content` gave.

        Raises:
            DataError: something is missing in it, or does not fit this model.
        """
        try:
            self.model.load_state_dict(content["model"]["state_dict"])
            self.ema.load_state_dict(content["ema"]["state_dict"], content["updates"])
            for model in (self.model, self.ema.model):
                model.head.forget_grids()  # the AMP check ran with other anchors, perhaps
            restore_optimizer(self.optimizer, content["optimizer"])
            if self.scaler.is_enabled() and content["scaler"]:
                self.scaler.load_state_dict(content["scaler"])
            self.loss.load_state_dict(content["loss"])
            self.loss.anchors = self.model.head.anchors.detach().float().cpu().clone()  # perhaps fitted ones
            self.stopper.load_state_dict(content["stopper"])
            self.progress = Progress(**content["progress"])
            self._restore_random(content["random"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"the checkpoint cannot be resumed ({type(error).__name__}: {error})") from error

    def _restore_random(self, states: Any) -> None:
        """Give each process its own generators back."""
        states = [states] if isinstance(states, dict) else states  # as one process wrote them, once
        if len(states) == self.process_group.world:
            restore_random_state(states[self.process_group.rank], self.device)
        else:
            LOG.warning(
                f"resuming with {self.process_group.world} processes instead of {len(states)}: "
                "random numbers differ"
            )


def on_cpu(value: Any) -> Any:
    """A nest of containers with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: on_cpu(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(v) for v in value)
    return value


def random_state(device: torch.device) -> dict[str, Any]:
    """States of the global generators; drop path draws from them, and a callback may."""
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
