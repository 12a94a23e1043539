"""One epoch of training."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.utils.train.small import SIZE, DrawnLoader, make_state, make_train_config
from utils.loggers.callbacks import CallbackList, Callbacks
from utils.train.loop import (
    compute_loss,
    random_size,
    rescale,
    set_train_mode,
    to_device,
    train_one_epoch,
)
from utils.train.loss_meter import DivergedError, LossMeter

NOBODY = CallbackList()


def test_an_epoch_updates_weights_and_ema_and_returns_losses() -> None:
    state = make_state()
    before = {key: value.clone() for key, value in state.model.state_dict().items()}
    losses = train_one_epoch(0, state, DrawnLoader(), make_train_config(), NOBODY)

    assert all(value > 0 for value in losses)
    assert not torch.equal(before["model.0.conv.weight"], state.model.state_dict()["model.0.conv.weight"])
    assert state.ema.updates == 4
    assert state.progress.last_update == 3


def test_two_runs_are_equal_bit_for_bit() -> None:
    one, two = make_state(), make_state()
    for state in (one, two):
        train_one_epoch(0, state, DrawnLoader(), make_train_config(), NOBODY)

    for key, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[key]), key


def test_gradients_are_accumulated_to_the_nominal_batch_after_the_warmup() -> None:
    state = make_state()
    config = make_train_config(
        batches=40, epochs=1, batch_size=4
    )  # 20 batches of warm-up, then 64 / 4 = 16 to an update
    steps = []

    class Steps(Callbacks):
        def optimizer_step(self, step: int) -> None:
            steps.append(step)

    train_one_epoch(0, state, DrawnLoader(40), config, CallbackList([Steps()]))

    assert steps[:2] == [0, 2]
    assert all(later - earlier <= 16 for earlier, later in zip(steps, steps[1:], strict=False))
    assert steps[-1] - steps[-2] > 8


def test_an_epoch_can_be_resumed_at_any_batch() -> None:
    state = make_state()
    state.progress.first_batch = 3
    seen = []

    class Batches(Callbacks):
        def on_train_batch_start(self, step: int) -> None:
            seen.append(step)

    train_one_epoch(1, state, DrawnLoader(), make_train_config(), CallbackList([Batches()]))

    assert seen == [7]


def test_a_loss_that_is_not_finite_stops_with_epoch_batch_and_causes() -> None:
    state = make_state()
    with torch.no_grad():
        state.model.head.m[0].bias.fill_(float("nan"))

    with pytest.raises(DivergedError, match=r"epoch 2, batch 0: .*lr0"):
        train_one_epoch(2, state, DrawnLoader(), make_train_config(), NOBODY)


def test_a_gradient_that_overflows_is_detected_with_a_finite_loss() -> None:
    meter = LossMeter(torch.device("cpu"), epoch=0, sums=[0.0] * 3)
    meter.add(torch.ones(3), 0)
    meter.watch(torch.tensor(float("inf")), 5)
    meter.add(torch.ones(3), 6)

    with pytest.raises(DivergedError, match="batch 5"):
        meter.read()


def test_a_callback_can_stop_the_run() -> None:
    class Once(Callbacks):
        def on_train_batch_end(self, *args: Any) -> None:
            self.stop_training = True

    callbacks = CallbackList([Once()])
    state = make_state()
    train_one_epoch(0, state, DrawnLoader(), make_train_config(), callbacks)

    assert callbacks.stop
    assert state.ema.updates == 1


def test_frozen_batch_norms_keep_their_statistics() -> None:
    state = make_state()
    frozen, trained = state.model.model[0], state.model.model[1]
    frozen.requires_grad_(False)
    train_one_epoch(0, state, DrawnLoader(), make_train_config(frozen=[frozen]), NOBODY)

    assert torch.equal(frozen.bn.running_mean, torch.zeros(8))
    assert not torch.equal(trained.bn.running_mean, torch.zeros(8))
    set_train_mode(state.model, ())
    assert frozen.bn.training


def test_images_become_floats_from_0_to_1() -> None:
    images = to_device(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1), torch.device("cpu"))

    assert images.flatten().tolist() == pytest.approx([0, 0.2, 1])


def test_multi_scale_draws_multiples_of_the_stride_from_0_5_to_1_5() -> None:
    config = make_train_config()
    sizes = {random_size(config, epoch, index) for epoch in range(5) for index in range(20)}

    assert sizes == {32, 64, 96}
    assert random_size(config, 1, 2) == random_size(config, 1, 2)
    assert rescale(torch.zeros(1, 3, SIZE, SIZE // 2), 96, 32).shape == (1, 3, 96, 64)


def test_the_loss_of_a_quad_batch_is_multiplied_by_four() -> None:
    plain, quad = make_state(), make_state()
    norms = []
    for state, config in ((plain, make_train_config()), (quad, make_train_config(quad=True))):
        state.model.train()
        batch = DrawnLoader().batch(0, 0)
        images = to_device(batch.images, state.device)
        compute_loss(state, images, batch.labels, config)[0].backward()
        norms.append(float(state.model.model[0].conv.weight.grad.norm()))

    assert norms[1] == pytest.approx(4 * norms[0], rel=1e-4)
