"""The moving average of the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.known import golden
from utils.train.optim import ModelEMA


def test_the_decay_rises_as_in_the_original() -> None:
    case = golden("08_schedules")["ema_decay"]
    ema = ModelEMA(nn.Linear(1, 1), case["decay"], case["tau"])

    assert [ema.decay_at(n) for n in case["updates"]] == pytest.approx(case["value"], rel=1e-9)


def _toy() -> nn.Linear:
    case = golden("08_schedules")["ema_toy"]
    model = nn.Linear(2, 2)
    model.load_state_dict({key: torch.tensor(case[f"init_{key}"]) for key in ("weight", "bias")})
    return model


def _step(model: nn.Linear, index: int) -> None:
    with torch.no_grad():
        model.weight += 0.5 * (index + 1)
        model.bias -= 0.25


def test_weights_follow_the_original_trace() -> None:
    model = _toy()
    ema = ModelEMA(model)
    for index, row in enumerate(golden("08_schedules")["ema_toy"]["trace"]):
        _step(model, index)
        ema.update(model)

        assert ema.updates == row["updates"]
        torch.testing.assert_close(ema.model.weight, torch.tensor(row["weight"]), rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ema.model.bias, torch.tensor(row["bias"]), rtol=1e-6, atol=1e-6)


def test_batch_norm_statistics_are_averaged_and_counters_are_not() -> None:
    model = nn.BatchNorm2d(2)
    ema = ModelEMA(model)
    model(torch.rand(4, 2, 3, 3) + 5)
    ema.update(model)

    assert (ema.model.running_mean > 0).all()
    assert ema.model.num_batches_tracked == 0


def test_a_restored_ema_continues_bit_for_bit() -> None:
    model = _toy()
    through = ModelEMA(model)
    _step(model, 0)
    through.update(model)
    resumed = ModelEMA(_toy())
    saved = {key: value.clone() for key, value in through.state_dict().items()}
    resumed.load_state_dict(saved, through.updates)
    _step(model, 1)
    for ema in (through, resumed):
        ema.update(model)

    assert torch.equal(through.model.weight, resumed.model.weight)
