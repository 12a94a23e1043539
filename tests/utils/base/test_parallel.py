from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch

from utils.base import parallel
from utils.base.parallel import JobQueue, WorkerPool, prefetch

CPU = torch.device("cpu")
GPU = torch.device("cuda", 0)  # named, never used


@pytest.fixture
def sixteen_threads() -> Iterator[None]:
    """Sixteen threads for PyTorch, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("sixteen_threads")
def test_workers_share_the_threads_of_pytorch_and_give_them_back() -> None:
    with WorkerPool(CPU) as workers:
        assert workers.count == parallel.MAX_WORKERS
        together = threading.Barrier(workers.count)

        def work(item: int) -> tuple[int, int]:
            together.wait(5)  # passes only if all run at the same time
            return item, torch.get_num_threads()

        results = list(workers.map(work, range(8)))
    assert results == [(item, 16 // parallel.MAX_WORKERS) for item in range(8)]
    assert torch.get_num_threads() == 16
    new: list[int] = []
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [16]


@pytest.mark.usefixtures("sixteen_threads")
def test_one_worker_is_the_thread_of_the_caller() -> None:
    me = threading.get_ident()
    with WorkerPool(CPU, most=1) as workers:
        assert workers.count == 1
        assert list(workers.map(lambda _: threading.get_ident(), range(2))) == [me] * 2
        assert workers.submit(threading.get_ident).result() == me  # no thread takes cores from the model
    with WorkerPool(GPU) as workers:
        assert workers.count == 1
        assert list(workers.map(lambda _: threading.get_ident(), range(2))) == [me] * 2
        assert workers.submit(threading.get_ident).result() != me


@pytest.mark.usefixtures("sixteen_threads")
@pytest.mark.parametrize("most", [1, 4])
def test_results_are_in_the_order_of_the_items_and_errors_too(most: int) -> None:
    def work(item: int) -> int:
        time.sleep(0.03 if item % 2 else 0)
        if item == 3:
            raise OSError("gone")
        return 10 * item

    with WorkerPool(CPU, most) as workers:
        results = list(workers.in_order(partial(workers.submit, work), range(6), ahead=4))
        assert [item for item, _ in results] == list(range(6))
        assert [future.result() for _, future in results[:3] + results[4:]] == [0, 10, 20, 40, 50]
        with pytest.raises(OSError, match="gone"):
            results[3][1].result()


def test_a_few_items_are_started_ahead_and_cancelled_on_close(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parallel, "MAX_IO_THREADS", 1)
    started = []
    go = threading.Event()

    def work(item: int) -> int:
        started.append(item)
        if item:
            go.wait(5)
        return item

    with WorkerPool(GPU) as workers:
        results = workers.in_order(partial(workers.submit, work), iter(range(100)), ahead=3)
        assert next(results)[1].result() == 0
        results.close()
        go.set()
    assert started in ([0], [0, 1])  # the others were waiting, and were cancelled

    with WorkerPool(CPU, most=1) as workers:
        next(workers.in_order(partial(workers.submit, work), range(100, 200), ahead=3))
    assert started[-1] == 100


def test_all_jobs_are_done_when_the_block_ends_and_few_of_them_wait() -> None:
    done: list[int] = []
    go = threading.Event()
    with ThreadPoolExecutor(1) as pool, JobQueue(pool, most=2) as jobs:
        jobs.put(lambda: done.append(int(go.wait(5))))
        jobs.put(lambda: done.append(2))
        threading.Timer(0.05, go.set).start()
        jobs.put(lambda: done.append(3))  # one too many: waits for the first
        assert done[0] == 1
    assert done == [1, 2, 3]


def full() -> None:
    raise OSError("disk full")


def test_an_error_of_a_job_is_raised_by_a_later_job_or_at_the_end() -> None:
    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(OSError, match="disk full"), JobQueue(pool, most=1) as jobs:
            jobs.put(full)
            jobs.put(lambda: pytest.fail("this job must not run"))
        with pytest.raises(OSError, match="disk full"), JobQueue(pool, most=4) as jobs:
            jobs.put(full)


def test_ctrl_c_is_not_hidden_by_an_error_of_a_job(caplog: pytest.LogCaptureFixture) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        caplog.at_level(logging.ERROR),
        pytest.raises(KeyboardInterrupt),
        JobQueue(pool, most=4) as jobs,
    ):
        jobs.put(full)
        raise KeyboardInterrupt
    assert caplog.messages == ["disk full"]


def test_without_threads_a_job_is_done_at_once() -> None:
    done: list[int] = []
    with WorkerPool(CPU, most=1) as workers, workers.job_queue(1, ordered=True) as jobs:
        jobs.put(lambda: done.append(1))
        assert done == [1]


def test_ordered_jobs_are_done_one_after_another() -> None:
    done: list[int] = []

    def work(number: int) -> None:
        time.sleep(0.02 / (number + 1))
        done.append(number)

    with WorkerPool(GPU) as workers, workers.job_queue(8, ordered=True) as jobs:
        for number in range(6):
            jobs.put(partial(work, number))
    assert done == list(range(6))


def test_prefetched_items_keep_their_order_and_an_error_comes_after_them() -> None:
    def items():
        yield 1
        yield 2
        raise OSError("gone")

    got = []
    with pytest.raises(OSError, match="gone"):
        for item in prefetch(items()):
            got.append(item)
    assert got == [1, 2]


def test_only_a_few_items_are_prefetched() -> None:
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
    assert len(made) == 4  # one taken, two in the queue, one that the thread holds
    ahead.close()


def test_closing_early_closes_the_items_and_ends_the_thread() -> None:
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
