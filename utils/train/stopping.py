"""Stop when the model has not become better for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass


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
