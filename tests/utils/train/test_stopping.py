"""Early stopping."""

from __future__ import annotations

from tests.known import golden
from utils.train.state import EarlyStopping


def test_stops_where_the_original_stops() -> None:
    case = golden("08_schedules")["early_stopping"]
    stopper = EarlyStopping(case["patience"])

    assert [stopper(epoch, value) for epoch, value in enumerate(case["fitness"])] == case["stop"]
    assert stopper.best_epoch == case["best_epoch"]


def test_announces_the_epoch_before_it_stops() -> None:
    stopper = EarlyStopping(patience=2)
    announced = []
    for epoch, fitness in enumerate([0.5, 0.4, 0.3]):
        stopper(epoch, fitness)
        announced.append(stopper.possible_stop)

    assert announced == [False, True, True]


def test_patience_zero_never_stops() -> None:
    stopper = EarlyStopping(patience=0)

    assert not any(stopper(epoch, 0.0) for epoch in range(1000))


def test_a_restored_stopper_continues_to_count() -> None:
    stopper = EarlyStopping(patience=3)
    for epoch, fitness in enumerate([0.5, 0.1, 0.1]):
        stopper(epoch, fitness)
    resumed = EarlyStopping(patience=3)
    resumed.load_state_dict(stopper.state_dict())

    assert resumed(3, 0.1)
