"""What every test may rely on."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.utils.loggers.sink import Sink
from utils.base.device import disable_ort_telemetry
from utils.base.log import LOG

# No run of a test starts TensorBoard or what else this machine has; tests of services ask for them.
os.environ["YOLOV5_LOGGERS"] = "none"
disable_ort_telemetry()  # tests import it, too
# A shell without job control starts what it puts into the background deaf to Ctrl-C, and children inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def quiet_console() -> Iterator[None]:
    """Undo `set_up_console` after a test that ran a script, so that `caplog` hears the next one."""
    level = LOG.level
    yield
    LOG.handlers.clear()
    LOG.propagate = True
    LOG.setLevel(level)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty home, no account, and a network in which every connection is a failure of the test."""
    for name in list(os.environ):
        if name.startswith(("WANDB_", "COMET_", "CLEARML_", "MLFLOW_")) or name.lower() in (
            "no_proxy",
            "netrc",
        ):
            monkeypatch.delenv(name)
    sink = Sink()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, sink.url)
        monkeypatch.setenv(name.upper(), sink.url)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    sink.socket.close()
    assert not sink.requests, f"unexpected requests: {sink.requests}"


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Everything that is logged."""
    lines: list[str] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    recorder, level = Recorder(), LOG.level
    LOG.addHandler(recorder)
    LOG.setLevel(logging.INFO)
    yield lines
    LOG.removeHandler(recorder)
    LOG.setLevel(level)
