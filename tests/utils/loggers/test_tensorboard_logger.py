"""Event files, read back with TensorBoard."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.utils.loggers.drive import MAP, drive, installed

pytestmark = installed("tensorboard")


def events(folder: Path) -> Any:
    """Load the event files of a folder with TensorBoard."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
    found.Reload()
    return found


def test_metrics_images_and_options_are_logged(offline: Path) -> None:
    drive("tensorboard", offline / "exp")

    found = events(offline / "exp")
    assert [(e.step, e.value) for e in found.Scalars("train/box_loss")] == [
        (0, 0.5),
        (1, pytest.approx(1 / 3)),
    ]
    assert [(e.step, e.value) for e in found.Scalars(f"best/{MAP}")] == [(1, 0.75)]
    assert "val/box_loss" not in found.Tags()["scalars"], "it was never measured"
    image = found.Images("labels")[0]
    assert (image.height, image.width) == (32, 48)
    assert image.encoded_image_string == (offline / "exp" / "labels.jpg").read_bytes()
    assert b'"hyp/lr0": 0.01' in found.Tensors("options")[0].tensor_proto.string_val[0]


def test_a_resumed_run_shows_each_epoch_once(offline: Path) -> None:
    drive("tensorboard", offline / "exp", range(3), completed=False)
    drive("tensorboard", offline / "exp", range(2, 4), resume="last.pt")

    assert [event.step for event in events(offline / "exp").Scalars(MAP)] == [0, 1, 2, 3]


def test_a_new_run_in_an_old_folder_replaces_it(offline: Path) -> None:
    drive("tensorboard", offline / "exp", range(3))
    drive("tensorboard", offline / "exp", range(1))

    assert [event.step for event in events(offline / "exp").Scalars(MAP)] == [0]
