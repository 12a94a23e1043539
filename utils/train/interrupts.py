"""Stop signals and checkpoints between two steps of training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

from utils.base.log import LOG
from utils.train.loss_meter import LossMeter
from utils.train.state import TrainState

if TYPE_CHECKING:
    from utils.train.run_dir import RunDir


_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignals:
    """Hold signals back as long as it is entered; outside of the main thread it does nothing."""

    def __init__(self) -> None:
        self.received = 0  # the signal that asks for the end; 0: none
        self._before: dict[int, Any] = {}
        self._patient = True

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within this block a signal ends the run where it stands: nothing there would be half done."""
        if self.received:
            self.end()
        self._patient = False
        try:
            yield
        finally:
            self._patient = True

    def end(self) -> NoReturn:
        """End as the signal would have done."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        again, self.received = self.received, number
        if again or not self._patient:
            self.end()
        LOG.warning("stopping after this step; once more stops at once")


class CheckpointHook:
    """Save after every so many updates of the weights, and save and end when asked to.

    Args:
        state: what is trained.
        run: where to save.
        signals: who may ask.
        every: updates between two checkpoints; 0: none within an epoch.
    """

    def __init__(self, state: TrainState, run: RunDir, signals: StopSignals, every: int = 0) -> None:
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
        self.signals.received = self.state.process_group.any(self.signals.received)
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
