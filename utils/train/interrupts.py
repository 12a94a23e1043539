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
    """Context manager that delays SIGINT and SIGTERM until the end of a step (main thread only)."""

    def __init__(self) -> None:
        self.received = 0  # number of the signal that was received; 0: none
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
    def immediate(self) -> Iterator[None]:
        """Let signals end the process at any point of this block, which must not change the state."""
        if self.received:
            self.end()
        self._patient = False
        try:
            yield
        finally:
            self._patient = True

    def end(self) -> NoReturn:
        """Raise what the signal would have raised."""
        if self.received == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt

    def _note(self, number: int, frame: FrameType | None) -> None:
        second, self.received = self.received, number
        if second or not self._patient:
            self.end()
        LOG.warning("stopping after this step; a second signal stops immediately")


class CheckpointHook:
    """Hook between two training steps: save every n optimizer steps, and save and end after a stop signal.

    Args:
        state: of the training.
        run: directory of the checkpoints.
        signals: received so far.
        every: optimizer steps between two checkpoints; 0: none within an epoch.
    """

    def __init__(self, state: TrainState, run: RunDir, signals: StopSignals, every: int = 0) -> None:
        self.state = state
        self.run = run
        self.signals = signals
        self.every = every

    def __call__(self, first_batch: int, meter: LossMeter) -> None:
        """Save or end if it is time to; the batches before `first_batch` of this epoch are trained.

        Raises:
            DivergedError: a loss is not finite, so that the state is not worth saving.
            KeyboardInterrupt, SystemExit: a signal was received, and the state is saved.
        """
        self.signals.received = self.state.process_group.maximum(self.signals.received)
        due = self.every and self.state.ema.updates % self.every == 0
        if due or self.signals.received:
            meter.read()  # raises if a loss was not finite
            self.state.progress.note(first_batch, meter)
            self.run.save(self.state.content(), best=False)
        if self.signals.received:
            self.signals.end()

    @contextmanager
    def immediate(self) -> Iterator[None]:
        """Let signals end the process at any point of this block, which must not change the saved state."""
        try:
            with self.signals.immediate():
                yield
        except (KeyboardInterrupt, SystemExit):
            self.run.save(self.state.content(), best=False)
            raise
