"""What every test may rely on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from utils.base.log import LOG


@pytest.fixture(autouse=True)
def quiet_console() -> Iterator[None]:
    """Undo `set_up_console` after a test that ran a script, so that `caplog` hears the next one."""
    level = LOG.level
    yield
    LOG.handlers.clear()
    LOG.propagate = True
    LOG.setLevel(level)
