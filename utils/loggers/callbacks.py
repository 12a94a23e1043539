"""The moments of a run that a logger can hear: override a method, and it is called then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class Callbacks:
    """A callback that does nothing; subclass it and override the moments you need.

    A callback hears and never speaks: it gets what the run knows and must not change it. The one
    exception is `stop_training`: set it to True, and the run ends at once, without its final steps.
    """

    stop_training: bool = False

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        """The run folder exists; nothing is loaded yet."""

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        """Data and model are ready; `labels` (n, 5) are those of all training images."""

    def on_train_start(self) -> None:
        """The first epoch is about to begin."""

    def on_train_epoch_start(self, epoch: int) -> None:
        """An epoch, counted from 0, is about to begin."""

    def on_train_batch_start(self, step: int) -> None:
        """A batch has arrived; `step` counts batches over the whole run."""

    def optimizer_step(self, step: int) -> None:
        """The weights have just been updated."""

    def on_before_zero_grad(self, step: int) -> None:
        """The gradients of an update are about to be dropped."""

    def on_train_batch_end(self, step: int, images: Tensor, targets: Tensor, paths: Sequence[str]) -> None:
        """A batch is done; `images` uint8 and `targets` are as the loader delivered them."""

    def on_train_epoch_end(self, epoch: int) -> None:
        """All batches of an epoch are done, the validation is still to come."""

    def on_val_start(self) -> None:
        """A validation is about to begin."""

    def on_val_batch_start(self, batch: int) -> None:
        """A batch of the validation has arrived."""

    def on_val_image_end(self, detections: Tensor, path: str) -> None:
        """An image's `detections` (n, 6) in its own pixels are matched."""

    def on_val_batch_end(self, batch: int, images: Tensor, targets: Tensor, paths: Sequence[str]) -> None:
        """A batch of the validation is done."""

    def on_val_end(self, result: Any) -> None:
        """A validation is done; `result` is an `EvalResult`."""

    def on_fit_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        """An epoch is trained and validated; `row` is its line of results.csv."""

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        """A checkpoint has been written; `best` when it is also the best so far."""

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        """All is done; `row` holds the last epoch, its metrics replaced by those of best.pt."""

    def on_params_update(self, options: dict[str, Any]) -> None:
        """The run's options are known, with its hyperparameters as `hyp`."""

    def teardown(self) -> None:
        """The run is over, whatever ended it."""


EVENTS = tuple(name for name, value in vars(Callbacks).items() if callable(value) and name[0] != "_")


class CallbackList(Callbacks):
    """Many callbacks that look like one; those that do not override a moment cost nothing there."""

    def __init__(self, callbacks: Iterable[Callbacks] = ()) -> None:
        self.callbacks = list(callbacks)
        for moment in EVENTS:
            heard = [
                getattr(callback, moment)
                for callback in self.callbacks
                if isinstance(callback, CallbackList)
                or getattr(type(callback), moment) is not getattr(Callbacks, moment)
            ]
            setattr(self, moment, _tell_all(heard))

    @property
    def stop(self) -> bool:
        """Whether any callback asks the run to end."""
        return any(
            callback.stop if isinstance(callback, CallbackList) else callback.stop_training
            for callback in self.callbacks
        )


def _tell_all(callbacks: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def tell(*args: Any, **kwargs: Any) -> None:
        for callback in callbacks:
            callback(*args, **kwargs)

    return tell
