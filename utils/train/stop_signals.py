"""Ctrl-C and SIGTERM in training: the first one is noted and waits for a whole step, the second is not."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from utils.base.log import LOG

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
