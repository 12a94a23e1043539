"""Callbacks of a training run: the base class, a list of them, and the one that plots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from utils.base.errors import WriteError, one_line
from utils.base.log import LOG
from utils.plots.painter import Painter

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from utils.data.loader import Batch


class Callbacks:
    """Base class of callbacks: a method per event, which does nothing unless a subclass overrides it.

    Arguments belong to the run and must not be changed. To stop a run, set `stop_training` to True: it then
    ends after the current batch, without its final steps.
    """

    stop_training: bool = False

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        """Called once the run folder exists, before anything is loaded."""

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        """Called once data and model are ready; `labels` (n, 5) are those of all training images."""

    def on_train_start(self) -> None:
        """Called before the first epoch."""

    def on_train_epoch_start(self, epoch: int) -> None:
        """Called before an epoch, counted from 0."""

    def on_train_batch_start(self, step: int) -> None:
        """Called when a batch is loaded; `step` counts the batches of the whole run."""

    def on_train_batch(self, step: int, batch: Batch) -> None:
        """Called with each batch of the data loader, before it is trained."""

    def optimizer_step(self, step: int) -> None:
        """Called after an update of the weights."""

    def on_before_zero_grad(self, step: int) -> None:
        """Called after an update, before its gradients are cleared."""

    def on_train_batch_end(self, step: int, images: Tensor, targets: Tensor, paths: Sequence[str]) -> None:
        """Called after a batch; `images` uint8 and `targets` are those of the data loader."""

    def on_train_epoch_end(self, epoch: int) -> None:
        """Called after the batches of an epoch, before its validation."""

    def on_val_start(self) -> None:
        """Called before a validation."""

    def on_val_batch_start(self, batch: int) -> None:
        """Called when a validation batch is loaded."""

    def on_val_image_end(self, detections: Tensor, path: str) -> None:
        """Called after an image is matched to its labels; `detections` (n, 6) are in pixels of the image."""

    def on_val_batch_end(self, batch: int, images: Tensor, targets: Tensor, paths: Sequence[str]) -> None:
        """Called after a validation batch."""

    def on_val_end(self, result: Any) -> None:
        """Called after a validation; `result` is an `EvalResult`."""

    def on_fit_epoch_end(self, epoch: int, row: dict[str, float]) -> None:
        """Called after an epoch and its validation; `row` is its row of results.csv."""

    def on_model_save(self, path: Path, epoch: int, best: bool) -> None:
        """Called after a checkpoint is written; `best` if it is also the best so far."""

    def on_fit_end(self, save_dir: Path) -> None:
        """Called after the last epoch, before best.pt is validated."""

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        """Called after the training; `row` is that of the last epoch with the metrics of best.pt."""

    def on_params_update(self, options: dict[str, Any]) -> None:
        """Called once the options are known; they contain the hyperparameters as `hyp`."""

    def teardown(self) -> None:
        """Called at the end of the run, also after an error."""


EVENTS = tuple(name for name, value in vars(Callbacks).items() if callable(value) and name[0] != "_")


class CallbackList(Callbacks):
    """Several callbacks as one. Callbacks that do not override a method are not called for its event."""

    def __init__(self, callbacks: Iterable[Callbacks] = ()) -> None:
        self.callbacks = list(callbacks)
        for event in EVENTS:
            overridden = [
                getattr(callback, event)
                for callback in self.callbacks
                if isinstance(callback, CallbackList)
                or getattr(type(callback), event) is not getattr(Callbacks, event)
            ]
            setattr(self, event, _call_each(overridden))

    @property
    def stop(self) -> bool:
        """Whether any callback has set `stop_training`."""
        return any(
            callback.stop if isinstance(callback, CallbackList) else callback.stop_training
            for callback in self.callbacks
        )


def _call_each(methods: Sequence[Callable[..., None]]) -> Callable[..., None]:
    def call(*args: Any, **kwargs: Any) -> None:
        for method in methods:
            try:
                method(*args, **kwargs)
            except WriteError as error:  # of a plot: a full disk does not end the run
                LOG.warning(f"{error}; continuing without it")

    return call


class PlotLogger(Callbacks):
    """Callback that writes labels.jpg, labels_correlogram.jpg, train_batch0-2.jpg and results.png."""

    batches = 3  # training batches to draw

    def __init__(self) -> None:
        self.folder = Path()
        self.names: dict[int, str] = {}
        self.painter = Painter()

    def on_pretrain_routine_start(self, save_dir: Path) -> None:
        self.folder = save_dir

    def on_pretrain_routine_end(self, labels: np.ndarray, names: dict[int, str]) -> None:
        from utils.plots.batches import plot_labels

        self.names = names
        self.painter.draw(plot_labels, labels, names, self.folder)

    def on_train_batch(self, step: int, batch: Batch) -> None:
        if step >= self.batches:
            return
        from utils.plots.batches import SUBPLOTS, plot_images

        shown = range(min(len(batch.paths), SUBPLOTS)) if batch.masks is not None else ()
        masks = [batch.masks_of(index).numpy() for index in shown]
        images, file = batch.images[:SUBPLOTS], self.folder / f"train_batch{step}.jpg"
        self.painter.draw(plot_images, images, batch.targets, batch.paths, file, self.names, masks=masks)

    def on_train_epoch_end(self, epoch: int) -> None:
        self.painter.rest()
        self.painter.wait()  # the loggers send the images of an epoch at its end

    def on_fit_end(self, save_dir: Path) -> None:
        from utils.plots.results import plot_results

        self.painter.draw(plot_results, save_dir / "results.csv")  # while best.pt is validated

    def on_train_end(self, save_dir: Path, row: dict[str, float]) -> None:
        self.painter.wait()

    def teardown(self) -> None:
        self.painter.rest()
        try:
            self.painter.wait()
        except Exception as error:  # the run may be ending with another one
            LOG.warning(f"a plot is missing: {one_line(error)}")
        self.painter.close()
