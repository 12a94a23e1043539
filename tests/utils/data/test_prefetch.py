import threading
import time

import pytest

from utils.data.prefetch import prefetch


def test_order_is_kept_and_an_error_comes_in_its_turn() -> None:
    def items():
        yield 1
        yield 2
        raise OSError("gone")

    got = []
    with pytest.raises(OSError, match="gone"):
        for item in prefetch(items()):
            got.append(item)
    assert got == [1, 2]


def test_only_a_few_are_made_ahead() -> None:
    made = []

    def items():
        for k in range(100):
            made.append(k)
            yield k

    ahead = prefetch(items(), depth=2)
    next(ahead)
    deadline = time.monotonic() + 2
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert len(made) == 4  # one taken, two ready, one in the hand
    ahead.close()


def test_closing_early_closes_the_source_and_ends_the_thread() -> None:
    closed = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            closed.set()

    ahead = prefetch(items())
    next(ahead)
    ahead.close()
    assert closed.is_set()
    assert not any(thread.name == "prefetch" for thread in threading.enumerate())
