"""YOLOv5's class `Callbacks`: functions that are called at the events of a training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from utils.compat.helpers import threaded
from utils.loggers.callbacks import EVENTS
from utils.loggers.callbacks import Callbacks as OurCallbacks


class Callbacks:
    """Registry of functions by event. Give our own `utils.loggers.callbacks.Callbacks` to train.run instead.

    Attributes:
        stop_training: set it to True to stop a training.
    """

    def __init__(self) -> None:
        self._callbacks: dict[str, list[dict[str, Any]]] = {event: [] for event in EVENTS}
        self.stop_training = False

    def register_action(self, hook: str, name: str = "", callback: Callable[..., Any] | None = None) -> None:
        """Register a function for an event.

        Raises:
            AssertionError: there is no such event, or it is not a function.
        """
        if hook not in self._callbacks:
            raise AssertionError(f"hook {hook!r} is not one of {', '.join(self._callbacks)}")
        if not callable(callback):
            raise AssertionError(f"callback {callback!r} cannot be called")
        self._callbacks[hook].append({"name": name, "callback": callback})

    def get_registered_actions(self, hook: str | None = None) -> Any:
        """Return the registered functions of an event, or of all."""
        return self._callbacks[hook] if hook else self._callbacks

    def run(self, hook: str, *args: Any, thread: bool = False, **kwargs: Any) -> None:
        """Call the functions of an event.

        Raises:
            AssertionError: there is no such event.
        """
        if hook not in self._callbacks:
            raise AssertionError(f"hook {hook!r} is not one of {', '.join(self._callbacks)}")
        for action in self._callbacks[hook]:
            call = threaded(action["callback"]) if thread else action["callback"]
            call(*args, **kwargs)


class _Adapter(OurCallbacks):
    """Calls the registered functions at the events of our training, with our arguments."""

    def __init__(self, registry: Callbacks) -> None:
        self.registry = registry

    @property
    def stop_training(self) -> bool:  # type: ignore[override]  # an attribute there
        """Whether a function has asked to stop."""
        return self.registry.stop_training


def _caller(event: str) -> Callable[..., None]:
    def call(self: _Adapter, *args: Any, **kwargs: Any) -> None:
        self.registry.run(event, *args, **kwargs)

    return call


for _event in EVENTS:
    setattr(_Adapter, _event, _caller(_event))


def adapted(callbacks: Any) -> OurCallbacks:
    """Return callbacks that our training and validation accept, for a `Callbacks` or for ours."""
    return _Adapter(callbacks) if isinstance(callbacks, Callbacks) else callbacks
