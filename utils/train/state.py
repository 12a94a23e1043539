"""The state of a training: everything that changes while it runs, and how it is saved and restored."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from models.weights import model_record
from utils.base.errors import DataError
from utils.train.distributed import ProcessGroup
from utils.train.loss_meter import LossMeter
from utils.train.optim import ModelEMA, restore_optimizer

if TYPE_CHECKING:
    from models.base_model import BaseModel
    from utils.val.accumulator import ValResult


@dataclass
class EarlyStopping:
    """Early stopping after `patience` epochs without a better fitness; 0 never stops."""

    patience: int = 100
    best_fitness: float = -1.0
    best_epoch: int = 0
    possible_stop: bool = False  # the next epoch may be the last one: it is validated even with --noval

    def __call__(self, epoch: int, fitness: float) -> bool:
        """Record the fitness of an epoch; return True if training should stop after it."""
        if fitness > self.best_fitness:
            self.best_epoch, self.best_fitness = epoch, fitness
        self.possible_stop = self.exhausted(epoch + 1)
        return self.exhausted(epoch)

    def exhausted(self, epoch: int) -> bool:
        """Return whether the patience is exhausted unless this epoch improves the fitness."""
        return epoch - self.best_epoch >= (self.patience or math.inf)

    def describe(self) -> str:
        """Return why training stops, as a sentence for the log."""
        return (
            f"Stopping early: no improvement in the last {self.patience} epochs. The best result, of epoch "
            f"{self.best_epoch}, is saved as best.pt. Change --patience to wait longer; 0 disables it."
        )

    def state_dict(self) -> dict[str, float | int | bool]:
        """Return the state for a checkpoint; --patience may change when the run is resumed."""
        return {
            "best_fitness": self.best_fitness,
            "best_epoch": self.best_epoch,
            "possible_stop": self.possible_stop,
        }

    def load_state_dict(self, state: dict[str, float | int | bool]) -> None:
        """Restore what `state_dict` returned."""
        self.best_fitness = float(state["best_fitness"])
        self.best_epoch = int(state["best_epoch"])
        self.possible_stop = bool(state["possible_stop"])


@dataclass
class Progress:
    """Counters of a run: all of its state between two optimizer steps that is not in tensors."""

    epoch: int = 0  # the first epoch that is not complete
    first_batch: int = 0  # its first batch that is not trained
    losses: list[float] = field(default_factory=list)  # sums of its losses over the trained batches
    last_update: int = -1  # step (batches over the run) of the latest optimizer step
    best_fitness: float = 0.0
    fitness: float = 0.0  # of the latest validation
    maps: list[float] = field(default_factory=list)  # `class_quality` of the latest validation

    def note(self, first_batch: int, meter: LossMeter) -> None:
        """Record how many batches of the epoch are trained."""
        self.first_batch, self.losses = first_batch, meter.sums()

    def record(self, epoch: int, result: ValResult | None) -> bool:
        """Record a complete epoch; return True if its fitness is the best so far, or equal to it."""
        self.epoch, self.first_batch, self.losses = epoch + 1, 0, []
        if result is None:
            return False
        self.fitness = result.fitness()
        self.maps = [float(value) for value in result.class_quality]
        best = self.fitness >= self.best_fitness
        if best:
            self.best_fitness = self.fitness
        return best


@dataclass(frozen=True)
class Origin:
    """Keys of a model's tensors by their origin; a head for other classes is in neither list."""

    transferred: list[str] = field(default_factory=list)  # loaded completely from the initial weights
    new: list[str] = field(default_factory=list)


@dataclass
class TrainState:
    """A model in training, with everything that is needed to resume it exactly."""

    model: BaseModel
    ema: ModelEMA[BaseModel]
    optimizer: Optimizer
    scaler: GradScaler
    loss: Any  # of the task
    stopper: EarlyStopping
    progress: Progress
    origin: Origin = field(default_factory=Origin)
    precision: torch.dtype | None = None  # of the forward pass; None: float32
    process_group: ProcessGroup = field(default_factory=ProcessGroup)
    stopped: bool = False  # a callback has requested the end

    @property
    def device(self) -> torch.device:
        """Device of the model."""
        return next(self.model.parameters()).device

    @property
    def half(self) -> bool:
        """Whether forward passes run in FP16, in training and validation."""
        return self.precision == torch.float16

    def epochs_left(self, epochs: int) -> range:
        """Return the remaining epochs; none if early stopping has already ended the run."""
        done = self.progress.epoch
        return range(done, done if self.stopper.exhausted(done - 1) else epochs)

    def content(self) -> dict[str, Any]:
        """Return the content of a checkpoint, FP32 on the CPU, from which `restore` continues exactly.

        All ranks have to call it; ranks other than 0 get an empty dict.
        """
        if not self.process_group.is_main:
            return {}
        return {
            "epoch": self.progress.epoch - 1,  # the last complete epoch, as in the original
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
        }

    def restore(self, content: dict[str, Any]) -> None:
        """Restore what `content` returned.

        Raises:
            DataError: an entry is missing or does not fit this model.
        """
        try:
            self.model.load_state_dict(content["model"]["state_dict"])
            self.ema.load_state_dict(content["ema"]["state_dict"], content["updates"])
            for model in (self.model, self.ema.model):
                model.forget_grids()  # the AMP check may have cached them for other anchors
            restore_optimizer(self.optimizer, content["optimizer"])
            if self.scaler.is_enabled() and content["scaler"]:
                self.scaler.load_state_dict(content["scaler"])
            self.loss.load_state_dict(content["loss"])
            self.loss.refresh(self.model)
            self.stopper.load_state_dict(content["stopper"])
            self.progress = Progress(**content["progress"])
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise DataError(f"the checkpoint cannot be resumed ({type(error).__name__}: {error})") from error


def on_cpu(value: Any) -> Any:
    """Copy nested containers with every tensor on the CPU."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: on_cpu(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(on_cpu(v) for v in value)
    return value
