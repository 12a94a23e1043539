"""Environment and fixtures of all tests."""

from __future__ import annotations

import logging
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.utils.loggers.sink import Sink
from utils.base.device import disable_ort_telemetry
from utils.base.log import LOG
from utils.base.script import wait_passively

wait_passively()
# .pt2 files of tests need not call their kernels fast, only compile fast.
os.environ.setdefault("AOT_INDUCTOR_COMPILE_WRAPPER_OPT_LEVEL", "O0")
# Training in a test uses none of the installed logging services; the tests of services enable them.
os.environ["YOLOV5_LOGGERS"] = "none"
disable_ort_telemetry()  # some tests import ONNX Runtime themselves
# A shell without job control makes its background processes ignore Ctrl-C, and child processes inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def quiet_console() -> Iterator[None]:
    """Undo `set_up_console` after a test that ran a script, so that `caplog` works in the next test."""
    level = LOG.level
    yield
    LOG.handlers.clear()
    LOG.propagate = True
    LOG.setLevel(level)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty home; no accounts, and the test fails if anything connects to the network."""
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium with a camera that shows a test image, if it is installed."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("Chromium is not installed (apt-get install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    flags = (
        "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
        "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",
    )  # fmt: skip
    with sync_api.sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=list(flags))
        yield opened
        opened.close()


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """Return the list of all logged messages."""
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
