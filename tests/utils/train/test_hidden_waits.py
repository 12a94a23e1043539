"""The steps of a training do not wait for the device: what would make a GPU synchronize is listed here."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from models.yolo import make_model
from tests.studies.classifiers import CONFIG as CLASSIFY_CONFIG
from tests.utils.train.accelerator import DEVICE, OnDevice, Wait, move, simulated
from tests.utils.train.small import (
    BATCH,
    CONFIG,
    SEGMENT_CONFIG,
    SIZE,
    DrawnLoader,
    hyperparameters,
    make_train_config,
    with_dropping,
)
from utils.data.loader import Batch
from utils.loggers.callbacks import CallbackList
from utils.tasks.task import get_task
from utils.train.hyp import scale_gains
from utils.train.loop import train_one_epoch
from utils.train.optim import ModelEMA, make_optimizer
from utils.train.state import EarlyStopping, Progress, TrainState

# What may wait, and how often.
ALLOWED = {
    # The sums of the losses are moved to the device once per epoch.
    Wait("utils/train/loss_meter.py", "__init__", "copy of numbers to the device"): 1,
    # The row of the first and of the last batch, and the result of the epoch. Between them a row is shown at
    # most every 0.3 seconds, whatever the number of batches.
    Wait("utils/train/loss_meter.py", "read", "tolist"): 3,
    # What a checkpoint holds; at the end of an epoch, and before a checkpoint within it.
    Wait("utils/train/loss_meter.py", "sums", "tolist"): 1,
}
CONFIGS = {
    "detect": CONFIG,
    "detect with a VAN stage, LSKA and dropout": with_dropping(CONFIG),
    "segment": SEGMENT_CONFIG,
    "classify": CLASSIFY_CONFIG,
}


class TaskLoader(DrawnLoader):
    """Random batches with the labels of a task."""

    def __init__(self, task: str, batches: int) -> None:
        super().__init__(batches)
        self.task = task

    def batch(self, epoch: int, index: int) -> Batch:
        made = super().batch(epoch, index)
        if self.task == "classify":
            return made._replace(targets=torch.stack((torch.arange(BATCH), made.targets[:BATCH, 1]), 1))
        if self.task == "segment":
            draw = torch.Generator().manual_seed(index)
            maps = torch.randint(0, 4, (BATCH, SIZE // 4, SIZE // 4), generator=draw)
            return made._replace(masks=maps)
        return made


def build(
    config: dict[str, Any], device: torch.device, optimizer: str = "SGD", **changes: float
) -> TrainState:
    """Return the state before the first step."""
    torch.manual_seed(0)
    model = make_model(config).to(memory_format=torch.channels_last)
    hyp = hyperparameters(**changes)
    gains = {"label_smoothing": 0.1, **scale_gains(hyp, levels=2, nc=2, imgsz=SIZE)}
    loss = get_task(model.task).make_loss(model, gains, Namespace(no_overlap=False))
    if device == DEVICE:
        move(model)
    return TrainState(
        model=model,
        ema=ModelEMA(model),
        optimizer=make_optimizer(model, optimizer, hyp, BATCH),
        scaler=GradScaler("cuda", enabled=False),
        loss=loss,
        stopper=EarlyStopping(),
        progress=Progress(),
    )


def epoch(state: TrainState, batches: int, **settings: Any) -> list[float]:
    """Train an epoch and return its losses."""
    task = get_task(state.model.task)
    config = make_train_config(batches, row=task.row_style, normalize=task.normalize, **settings)
    loader: Any = TaskLoader(task.name, batches)
    return train_one_epoch(0, state, loader, config, CallbackList())


@pytest.fixture
def few_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Show the rows of the first and the last batch only, however long a batch takes here."""
    monkeypatch.setattr("utils.train.loss_meter._REFRESH", float("inf"))


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("batches", [2, 4])
def test_the_waits_of_an_epoch_are_those_allowed_for_any_number_of_batches(
    name: str, batches: int, few_rows: None
) -> None:
    state = build(CONFIGS[name], DEVICE)
    with simulated() as waits:
        epoch(state, batches)

    assert Counter(waits) == ALLOWED
    assert state.ema.updates == batches


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"multi_scale": True}, {}),
        ({"quad": True}, {}),
        ({}, {"fl_gamma": 1.5, "cls_pw": 0.8, "obj_pw": 0.9}),
    ],
)
def test_options_of_the_training_add_no_wait(
    settings: dict[str, Any], changes: dict[str, float], few_rows: None
) -> None:
    state = build(CONFIG, DEVICE, "AdamW", **changes)
    with simulated() as waits:
        epoch(state, 2, **settings)

    assert Counter(waits) == ALLOWED


@pytest.mark.parametrize("name", ["detect", "segment", "classify"])
def test_the_counts_of_several_processes_add_no_wait(name: str, few_rows: None) -> None:
    state = build(CONFIGS[name], DEVICE)
    state.process_group.world = 2  # the other one has no images
    with simulated() as waits:
        epoch(state, 2)

    assert Counter(waits) == ALLOWED


@pytest.mark.parametrize("name", ["detect", "segment", "classify"])
def test_the_losses_are_those_of_the_cpu(name: str) -> None:
    expected = epoch(build(CONFIGS[name], torch.device("cpu")), 3)
    state = build(CONFIGS[name], DEVICE)
    with simulated():
        losses = epoch(state, 3)

    assert losses == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_the_optimizers_skip_steps_that_overflow_without_the_cpu(name: str) -> None:
    """GradScaler reads on the CPU whether a gradient overflowed, unless the optimizer does it itself."""
    optimizer: Any = build(CONFIG, torch.device("cpu"), name).optimizer

    assert optimizer._step_supports_amp_scaling


def _on_device() -> Tensor:
    return torch.arange(4.0).to(DEVICE, non_blocking=True)


@pytest.mark.parametrize(
    ("operation", "wait"),
    [
        (lambda: _on_device().sum().item(), "_local_scalar_dense"),
        (lambda: bool(_on_device().sum() > 3), "_local_scalar_dense"),
        (lambda: _on_device().tolist(), "tolist"),
        (lambda: _on_device().cpu(), "copy to the CPU"),
        (lambda: torch.arange(3).to(DEVICE), "copy to the device"),
        (lambda: torch.tensor([1.0], device=DEVICE), "copy of numbers to the device"),
        (lambda: _on_device().new_tensor([1.0]), "copy of numbers to the device"),
        (lambda: _on_device()[_on_device() > 1], "index with a mask"),
        (lambda: _on_device()[torch.tensor([1])], "copy of an index to the device"),
        (lambda: _on_device().nonzero(), "nonzero"),
        (lambda: torch.where(_on_device() > 1), "nonzero"),
        (lambda: _on_device().long().bincount(), "bincount"),
        (lambda: _on_device().masked_select(_on_device() > 1), "masked_select"),
        (lambda: _on_device().unique(), "_unique2"),
    ],
)
def test_each_kind_of_wait_is_recorded(operation: Callable[[], Any], wait: str) -> None:
    with simulated() as waits:
        operation()

    assert [found.operation for found in waits] == [wait]


def test_arithmetic_and_copies_that_do_not_wait_are_not_recorded() -> None:
    with simulated() as waits:
        one = _on_device()
        two = torch.where(one > 1, one, 0.0).add_(torch.zeros(4, device=DEVICE)).clamp(max=2)
        picked = two[torch.tensor([3, 1]).to(DEVICE, non_blocking=True)]

    assert not waits
    assert isinstance(picked, OnDevice) and picked.on_cpu.tolist() == [2, 0]


def test_tensors_on_two_devices_are_an_error() -> None:
    with simulated(), pytest.raises(RuntimeError, match="two devices"):
        _on_device() + torch.ones(4)
