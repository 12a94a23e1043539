"""What happens between two steps of training: a checkpoint, or the end that a signal asks for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from utils.train.loss_meter import LossMeter
from utils.train.state import TrainState

if TYPE_CHECKING:
    from utils.train.run_dir import RunFolder
    from utils.train.stop_signals import StopSignals


class Pause:
    """Save after every so many updates of the weights, and save and end when asked to.

    Args:
        state: what is trained.
        run: where to save.
        signals: who may ask.
        every: updates between two checkpoints; 0: none within an epoch.
    """

    def __init__(self, state: TrainState, run: RunFolder, signals: StopSignals, every: int = 0) -> None:
        self.state = state
        self.run = run
        self.signals = signals
        self.every = every

    def __call__(self, first_batch: int, meter: LossMeter) -> None:
        """Do what is due; the batches before `first_batch` of this epoch are trained.

        Raises:
            DivergedError: there is nothing good to save.
            KeyboardInterrupt, SystemExit: the end was asked for, and all is saved.
        """
        self.signals.received = self.state.team.any(self.signals.received)
        due = self.every and self.state.ema.updates % self.every == 0
        if due or self.signals.received:
            meter.read()  # raises if a loss was not finite
            self.state.progress.note(first_batch, meter)
            self.run.save(self.state.content(), best=False)
        if self.signals.received:
            self.signals.end()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A block that changes nothing of the state: a signal ends it where it stands, and all is saved."""
        try:
            with self.signals.at_once():
                yield
        except (KeyboardInterrupt, SystemExit):
            self.run.save(self.state.content(), best=False)
            raise
