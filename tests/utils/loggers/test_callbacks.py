"""Callbacks, and lists of them."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

from tests.utils.train.small import small_models, small_set
from utils.base.paths import ROOT
from utils.loggers.callbacks import EVENTS, CallbackList, Callbacks

DOCUMENT = ROOT / "docs" / "loggers.md"
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


def test_all_events_of_the_original_exist() -> None:
    assert set(EVENTS) == ORIGINAL | {"on_train_batch", "on_fit_end"}


def test_callbacks_are_called_in_order() -> None:
    notes: list[str] = []
    callbacks = CallbackList([Notes("a", notes), Notes("b", notes)])
    callbacks.on_train_epoch_start(3)
    callbacks.on_train_start()  # no callback overrides it

    assert notes == ["a 3", "b 3"]


def test_lists_can_be_nested_and_report_a_stop() -> None:
    notes: list[str] = []
    callback = Notes("a", notes)
    callbacks = CallbackList([CallbackList([callback])])
    callbacks.on_train_epoch_start(1)

    assert notes == ["a 1"]
    assert not callbacks.stop
    callback.stop_training = True
    assert callbacks.stop


def test_the_docs_list_every_event_with_its_arguments() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", DOCUMENT.read_text(), re.MULTILINE))

    for event in EVENTS:
        arguments = [
            name for name in inspect.signature(getattr(Callbacks, event)).parameters if name != "self"
        ]
        assert event in rows and all(f"`{name}`" in rows[event] for name in arguments), event


def test_the_example_of_the_docs_runs(tmp_path: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "example.py").write_text(example)
    small_set(tmp_path).rename(tmp_path / "cells.yaml")
    small_models(tmp_path)[0].rename(tmp_path / "yolov5n.yaml")  # found before the real one, and faster
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "diary.txt").read_text().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["epoch 0", "epoch 1"]
