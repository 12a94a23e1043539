"""Estimates of the remaining time."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies.evolve.eta import Forecast, format_minutes
from studies.evolve.trials import Result


def test_the_total_time_is_estimated_once_from_the_first_epochs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now = [100.0]
    monkeypatch.setattr("studies.evolve.eta.time.monotonic", lambda: now[0])
    forecast = Forecast(jobs=2, epochs=50, known=())
    (tmp_path / "run").mkdir()
    with caplog.at_level("INFO"):
        for rows in range(5):  # an epoch takes a minute; the start of the process is not counted
            (tmp_path / "run" / "results.csv").write_text("header\n" + "row\n" * rows)
            forecast.watch(tmp_path, 300)
            now[0] += 60

    logged = [record.getMessage() for record in caplog.records]
    assert logged == ["estimate from the first epochs: 50 min for a candidate, about 125.0 h for all 300"]


def test_the_remaining_time_follows_from_finished_candidates() -> None:
    forecast = Forecast(jobs=2, epochs=50, known=[Result(0, {}, minutes=10.0), Result(1, {}, failure="lost")])

    assert forecast.left(12) == "about 60 min for 12 more" and not forecast.left(0)
    forecast.note(Result(2, {}, minutes=30.0))
    forecast.note(Result(3, {}, minutes=0.0, same_as=2))
    assert forecast.left(12) == "about 2.0 h for 12 more"


def test_times_are_in_a_suitable_unit() -> None:
    assert [format_minutes(minutes) for minutes in (0.5, 5, 300)] == ["30 s", "5 min", "5.0 h"]
