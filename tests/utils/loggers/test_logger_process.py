"""A service in its own process never affects the training process."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.utils.loggers import fakes
from tests.utils.loggers.drive import drive, row
from utils.loggers.logger_process import LoggerProcess, LoggerProcesses

METRICS = "{'train/box_loss': 0.5, 'metrics/mAP_0.5:0.95': 0.0}"


def _lines(folder: Path) -> list[str]:
    return (folder / "diary.txt").read_text().splitlines()


def test_a_service_receives_events_in_order(tmp_path: Path) -> None:
    drive(fakes.service_of(fakes.Diary), tmp_path, range(3), save_period=2, artifact_alias="mine")

    lines = _lines(tmp_path)
    assert lines[:3] == ["start new lr0=0.01", f"metrics 0 {METRICS}", "image labels 0"]
    assert lines[3] == "checkpoints epoch0.pt: latest, best, epoch 0, mine"
    assert [line for line in lines if line.startswith("checkpoints")][1:] == [
        "checkpoints epoch2.pt: latest, best, epoch 2, mine",
        "checkpoints best.pt last.pt: latest, best, mine",
    ]
    assert lines[-1] == "finish True"
    assert not (tmp_path / "loggers" / "diary.txt").exists(), "it printed nothing"


def test_a_resumed_run_continues_and_logs_no_epoch_twice(tmp_path: Path) -> None:
    diary = fakes.service_of(fakes.Diary)
    drive(diary, tmp_path, range(2), completed=False)
    drive(diary, tmp_path, range(1, 3), resume="last.pt")

    lines = _lines(tmp_path)
    assert lines.count("finish False") == 1 and "start resumed lr0=0.01" in lines
    assert [line.split()[1] for line in lines if line.startswith("metrics")] == ["0", "1", "2"]


def test_a_new_run_in_an_existing_folder_starts_from_scratch(tmp_path: Path) -> None:
    for _ in range(2):
        drive(fakes.service_of(fakes.Diary), tmp_path, range(1))

    assert _lines(tmp_path).count("start new lr0=0.01") == 2
    assert _lines(tmp_path).count(f"metrics 0 {METRICS}") == 2


@pytest.mark.parametrize(
    ("service", "words"),
    [
        (fakes.Fails, "Fails: ConnectionError: the server is gone (see "),
        (fakes.Dies, "Dies: about to die (see "),
        (fakes.Asks, "Asks: EOFError"),
    ],
)
def test_a_failing_service_causes_one_warning_and_is_disabled(
    service: type, words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        drive(fakes.service_of(service), tmp_path, range(3))

    warnings = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and warnings[0].startswith(words), warnings
    assert warnings[0].endswith("this run continues without it")


def test_a_hanging_service_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("YOLOV5_LOGGERS_WAIT", "2")
    drive(fakes.service_of(fakes.Hangs), tmp_path)

    assert "Hangs: it did not finish within 2 s" in caplog.text
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_run_that_ends_before_it_has_a_folder_changes_no_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loggers").mkdir()
    LoggerProcesses([fakes.service_of(fakes.Diary)]).teardown()

    assert [path.name for path in tmp_path.iterdir()] == ["loggers"]


def test_a_process_that_never_reads_does_not_block_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    program = tmp_path / "sleeper"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    monkeypatch.setattr("utils.loggers.logger_process.sys.executable", str(program))
    (tmp_path / "loggers").mkdir()
    process = LoggerProcess(fakes.service_of(fakes.Diary))
    process.start(tmp_path)
    for step in range(2000):  # more than fits into the pipe
        process.send("on_fit_epoch_end", step, row(step))

    assert "Diary: it does not keep up" in caplog.text
    assert process.process is None


def test_a_service_ends_with_the_training_process(tmp_path: Path) -> None:
    code = """if True:
        import os, signal, sys
        from pathlib import Path
        from tests.utils.loggers import drive, fakes
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
        drive.drive(fakes.service_of(fakes.Diary), Path(sys.argv[1]), after_epoch=kill)
    """
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    deadline = time.monotonic() + 60
    while not (diary := tmp_path / "diary.txt").exists() or "finish" not in diary.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)

    assert done.returncode == -signal.SIGKILL
    assert _lines(tmp_path)[-1] == "finish False"
