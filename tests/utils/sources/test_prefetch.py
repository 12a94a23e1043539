import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from utils.sources.prefetch import in_turn, prefetch


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


def test_results_of_a_pool_come_in_the_order_of_the_items_and_errors_in_their_turn() -> None:
    def work(item: int) -> int:
        time.sleep(0.03 if item % 2 else 0)
        if item == 3:
            raise OSError("gone")
        return 10 * item

    with ThreadPoolExecutor(4) as pool:
        for threads in (pool, None):
            results = list(in_turn(work, range(6), threads, ahead=4))
            assert [future.result() for future in results[:3] + results[4:]] == [0, 10, 20, 40, 50]
            with pytest.raises(OSError, match="gone"):
                results[3].result()


def test_a_pool_begins_a_few_items_ahead_and_none_that_nobody_wants() -> None:
    begun = []
    go = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item:
            go.wait(5)
        return item

    with ThreadPoolExecutor(1) as pool:
        results = in_turn(work, iter(range(100)), pool, ahead=3)
        assert next(results).result() == 0
        results.close()
        go.set()
    assert begun in ([0], [0, 1])  # the rest was waiting, and dropped

    lazy = in_turn(lambda item: begun.append(item) or item, range(100, 200), None, ahead=3)
    next(lazy)
    assert begun[-1] == 100
