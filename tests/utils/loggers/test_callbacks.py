"""Listeners and the list that tells them all."""

from __future__ import annotations

from utils.loggers.callbacks import MOMENTS, CallbackList, Callbacks

ORIGINAL = {
    "on_pretrain_routine_start",
    "on_pretrain_routine_end",
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "optimizer_step",
    "on_before_zero_grad",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_val_start",
    "on_val_batch_start",
    "on_val_image_end",
    "on_val_batch_end",
    "on_val_end",
    "on_fit_epoch_end",
    "on_model_save",
    "on_train_end",
    "on_params_update",
    "teardown",
}


class Notes(Callbacks):
    def __init__(self, name: str, notes: list[str]) -> None:
        self.name, self.notes = name, notes

    def on_train_epoch_start(self, epoch: int) -> None:
        self.notes.append(f"{self.name} {epoch}")


def test_all_moments_of_the_original_exist() -> None:
    assert set(MOMENTS) == ORIGINAL


def test_every_listener_is_told_in_order() -> None:
    notes: list[str] = []
    callbacks = CallbackList([Notes("a", notes), Notes("b", notes)])
    callbacks.on_train_epoch_start(3)
    callbacks.on_train_start()  # nobody listens

    assert notes == ["a 3", "b 3"]


def test_lists_nest_and_pass_a_wish_to_stop_on() -> None:
    notes: list[str] = []
    listener = Notes("a", notes)
    callbacks = CallbackList([CallbackList([listener])])
    callbacks.on_train_epoch_start(1)

    assert notes == ["a 1"]
    assert not callbacks.stop
    listener.stop_training = True
    assert callbacks.stop
