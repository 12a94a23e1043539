import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from utils.predict.parallel import BoundedExecutor


def test_all_is_done_when_the_block_ends_and_little_of_it_waits() -> None:
    done: list[int] = []
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool, BoundedExecutor(pool, most=2) as background:
        background.do(lambda: done.append(int(go.wait(5))))
        background.do(lambda: done.append(2))
        threading.Timer(0.05, go.set).start()
        background.do(lambda: done.append(3))  # one too many: waits for the first
        assert done[0] == 1
    assert done == [1, 2, 3]


def full() -> None:
    raise OSError("disk full")


def test_an_error_is_raised_by_a_later_job_or_at_the_end() -> None:
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(OSError, match="disk full"), BoundedExecutor(pool, most=1) as background:
            background.do(full)
            background.do(lambda: pytest.fail("this job is not begun"))
        with pytest.raises(OSError, match="disk full"), BoundedExecutor(pool, most=4) as background:
            background.do(full)


def test_ctrl_c_is_not_hidden_by_an_error_of_a_job(caplog: pytest.LogCaptureFixture) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        caplog.at_level(logging.ERROR),
        pytest.raises(KeyboardInterrupt),
        BoundedExecutor(pool, most=4) as background,
    ):
        background.do(full)
        raise KeyboardInterrupt
    assert caplog.messages == ["disk full"]


def test_without_threads_it_is_done_at_once() -> None:
    done: list[int] = []
    with BoundedExecutor(None, most=1) as background:
        background.do(lambda: done.append(1))
        assert done == [1]
