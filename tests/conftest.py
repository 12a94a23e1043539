"""What every test may rely on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from utils.base.log import LOG

# No run of a test starts TensorBoard or what else this machine has; tests of services ask for them.
os.environ["YOLOV5_LOGGERS"] = "none"


@pytest.fixture(autouse=True)
def quiet_console() -> Iterator[None]:
    """Undo `set_up_console` after a test that ran a script, so that `caplog` hears the next one."""
    level = LOG.level
    yield
    LOG.handlers.clear()
    LOG.propagate = True
    LOG.setLevel(level)
