"""Saving and restoring a run between two epochs."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from models.weights import read_checkpoint, save_checkpoint
from tests.utils.train.small import CONFIG, DrawnLoader, make_state, make_train_config, with_dropping
from utils.base.errors import DataError
from utils.base.seeds import seed_step
from utils.loggers.callbacks import CallbackList
from utils.train.loop import train_one_epoch
from utils.train.optim import ModelEMA
from utils.train.state import Progress, TrainState
from utils.val.accumulator import EvalResult


def _train(state: TrainState, epochs: range) -> None:
    config = make_train_config(batch_size=24)  # 3 batches to an update: one is left over in each epoch
    for epoch in epochs:
        train_one_epoch(epoch, state, DrawnLoader(), config, CallbackList())
        state.progress.record(epoch, None)


def test_a_run_resumed_from_a_file_ends_bit_equal(tmp_path: Path) -> None:
    through, stopped, resumed = make_state(), make_state(), make_state(lr0=0.5)
    _train(through, range(4))
    _train(stopped, range(2))
    save_checkpoint(tmp_path / "last.pt", stopped.content())
    training = read_checkpoint(tmp_path / "last.pt").training
    assert training is not None
    resumed.restore(training)
    _train(resumed, resumed.epochs_left(4))

    for one, two in ((through.model, resumed.model), (through.ema.model, resumed.ema.model)):
        for key, value in one.state_dict().items():
            assert torch.equal(value, two.state_dict()[key]), key
    assert through.progress == resumed.progress
    assert through.ema.updates == resumed.ema.updates


def test_autoanchor_results_are_restored_in_model_ema_and_loss() -> None:
    fitted, resumed = make_state(), make_state()
    fitted.model.head.set_anchors(fitted.model.head.anchors_px() * 1.5)
    fitted.ema = ModelEMA(fitted.model)
    images = torch.rand(1, 3, 64, 64)
    resumed.ema.model(images)  # decodes, and remembers the anchors of this size
    resumed.restore(fitted.content())

    assert torch.equal(resumed.loss.anchors, fitted.model.head.anchors)
    assert torch.equal(resumed.ema.model(images)[0], fitted.ema.model(images)[0])


def test_a_file_of_another_model_is_refused() -> None:
    content = make_state().content()
    content["model"]["state_dict"].pop("model.0.conv.weight")

    with pytest.raises(DataError, match="model.0.conv.weight"):
        make_state().restore(content)


def test_what_layers_drop_depends_on_the_step_alone() -> None:
    """Numbers that others draw in between, such as the workers of a loader, change nothing."""
    config = with_dropping(CONFIG)
    through, resumed = make_state(config), make_state(config)
    _train(through, range(3))
    _train(resumed, range(2))
    torch.rand(1), np.random.rand(1), random.random()
    _train(resumed, range(2, 3))
    weights = through.model.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in resumed.model.state_dict().items())


def test_steps_epochs_and_processes_drop_differently() -> None:
    drawn = []
    for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 0, 0, 1)):
        seed_step(*key)
        drawn += [float(torch.rand(1)), np.random.rand(), random.random()]
    assert len(set(drawn)) == 15
    seed_step(0, 0, 0)
    assert [float(torch.rand(1)), np.random.rand(), random.random()] == drawn[:3]


def _result(fitness: float) -> EvalResult:
    return EvalResult({0: "a"}, 1, np.ones(1, int), np.array([fitness]), map50=fitness, map=fitness)


def test_progress_keeps_the_best_fitness_and_counts_a_tie_as_best() -> None:
    progress = Progress()

    assert [progress.record(epoch, _result(f)) for epoch, f in enumerate([0.0, 0.5, 0.4, 0.5])] == [
        True, True, False, True,
    ]  # fmt: skip
    assert (progress.epoch, progress.best_fitness) == (4, 0.5)


def test_no_epochs_are_left_once_patience_is_exhausted() -> None:
    state = make_state()
    state.progress.epoch = 4
    assert list(state.epochs_left(6)) == [4, 5]
    state.stopper.patience, state.stopper.best_epoch = 2, 1
    assert list(state.epochs_left(6)) == [], "it had ended early, and was killed before it was finished"
    state.stopper.patience = 3
    assert list(state.epochs_left(6)) == [4, 5]


def test_an_epoch_without_validation_is_never_the_best() -> None:
    progress = Progress()

    assert not progress.record(0, None)
    assert progress.fitness == 0.0
