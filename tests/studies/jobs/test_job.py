"""Errors of jobs, and the minutes in their folders."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from studies.jobs.job import FailedError, JobError, KilledError, Minutes, counted_minutes
from utils.base.errors import DataError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (KilledError("plain, seed 0", "killed by signal 9"), "plain, seed 0: killed by signal 9"),
        (FailedError("a", "no space", 2, "log.txt"), "a: failed (no space); see log.txt"),
        (FailedError("a", "lost"), "a: failed (lost)"),
    ],
)
def test_errors_can_be_sent_to_another_process(error: JobError, message: str) -> None:
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error) and str(again) == str(error) == message
    assert vars(again) == vars(error)


def test_minutes_are_summed_over_attempts(tmp_path: Path) -> None:
    (tmp_path / "minutes.txt").write_text("2.5")
    with counted_minutes(tmp_path, tmp_path / "last.pt") as minutes:
        assert (tmp_path / "begun").is_file()

    assert 2.5 <= minutes.total < 2.6 and not (tmp_path / "begun").exists()
    assert float((tmp_path / "minutes.txt").read_text()) == pytest.approx(minutes.total, abs=0.01)


def test_a_killed_attempt_counts_up_to_its_last_checkpoint(tmp_path: Path) -> None:
    for name, seconds in {"begun": 1000, "last.pt": 1000 + 180}.items():
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
    with counted_minutes(tmp_path, tmp_path / "last.pt") as minutes:
        assert 3 <= minutes.total < 3.1


def test_damaged_minutes_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "minutes.txt").write_text("an hour")
    with pytest.raises(DataError, match="minutes.txt: damaged"):
        Minutes(tmp_path / "minutes.txt")
