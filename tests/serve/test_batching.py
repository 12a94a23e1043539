"""Batches, bounded queues, shutdown and disconnects."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from serve.batching import Batcher, BusyError

WAIT = 10  # seconds after which a test fails


class Worker:
    """Doubles numbers, once `released` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Semaphore(0)
        self.released = threading.Event()

    def __call__(self, tasks: Sequence[int]) -> list[int]:
        self.batches.append(list(tasks))
        self.entered.release()
        assert self.released.wait(WAIT)
        if -1 in tasks:
            raise ValueError("minus one")
        return [2 * task for task in tasks]


@pytest.fixture
def worker() -> Worker:
    return Worker()


@pytest.fixture
def make(worker: Worker) -> Iterator[Callable[..., Batcher[int, int]]]:
    made: list[Batcher[int, int]] = []

    def start(**changes: Any) -> Batcher[int, int]:
        made.append(Batcher(worker, "m", **{"max_batch": 3, "max_wait": 0.0, "max_requests": 8, **changes}))
        return made[-1]

    yield start
    worker.released.set()
    for batcher in made:
        batcher.close()


def test_tasks_that_arrive_while_the_thread_is_busy_form_one_batch(worker: Worker, make: Any) -> None:
    batcher = make()
    first = batcher.submit(0, "a")
    assert worker.entered.acquire(timeout=WAIT)
    rest = [batcher.submit(number, "b" if number == 3 else "a") for number in range(1, 7)]
    worker.released.set()

    assert [future.result(WAIT)[0] for future in (first, *rest)] == [0, 2, 4, 6, 8, 10, 12]
    assert worker.batches == [[0], [1, 2, 4], [3], [5, 6]], "of one key, in order, at most three"


def test_the_first_task_waits_for_others(worker: Worker, make: Any) -> None:
    worker.released.set()
    batcher = make(max_wait=WAIT)
    futures = [batcher.submit(number, "a") for number in range(3)]

    assert [future.result(WAIT / 2)[0] for future in futures] == [0, 2, 4]
    assert worker.batches == [[0, 1, 2]], "a full batch does not wait"


def test_a_single_task_waits_for_max_wait_only(worker: Worker, make: Any) -> None:
    worker.released.set()

    result, waited = make(max_wait=0.02).submit(4, "a").result(WAIT)

    assert result == 8 and waited >= 0.02


def test_a_cancelled_task_is_not_processed(worker: Worker, make: Any) -> None:
    batcher = make()
    first = batcher.submit(0, "a")
    assert worker.entered.acquire(timeout=WAIT)
    cancelled, kept = batcher.submit(1, "a"), batcher.submit(2, "a")
    assert cancelled.cancel() and batcher.waiting == 1
    worker.released.set()

    assert first.result(WAIT)[0] == 0 and kept.result(WAIT)[0] == 4
    assert worker.batches == [[0], [2]]
    with pytest.raises(CancelledError):
        cancelled.result(0)


def test_an_exception_affects_its_batch_only(worker: Worker, make: Any) -> None:
    worker.released.set()
    batcher = make(max_wait=0.2, max_batch=2)
    bad = [batcher.submit(number, "a") for number in (-1, 1)]
    good = batcher.submit(2, "a")

    for future in bad:
        with pytest.raises(ValueError, match="minus one"):
            future.result(WAIT)
    assert good.result(WAIT)[0] == 4 and batcher.alive


def test_requests_and_queue_are_bounded(worker: Worker, make: Any) -> None:
    batcher = make(max_requests=1)
    with batcher.slot():
        batcher.submit(0, "a")
        assert worker.entered.acquire(timeout=WAIT)
        batcher.submit(1, "a")
        for refused in (lambda: batcher.submit(2, "a"), lambda: batcher.slot().__enter__()):
            with pytest.raises(BusyError):
                refused()
    with batcher.slot():
        pass


def test_closing_processes_queued_tasks(worker: Worker, make: Any) -> None:
    batcher = make(max_wait=WAIT)
    futures = [batcher.submit(number, "a") for number in range(2)]
    worker.released.set()
    started = time.monotonic()
    batcher.close()

    assert [future.result(0)[0] for future in futures] == [0, 2]
    assert time.monotonic() - started < WAIT / 2 and not batcher.alive
    with pytest.raises(BusyError, match="stopping"):
        batcher.submit(1, "a")


def test_batched_detections_equal_those_of_single_requests() -> None:
    """Eight concurrent clients with two image shapes and different parameters."""
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("python_multipart")
    pytest.importorskip("httpx")
    from tests.serve.service import client, encoded, make_image

    shapes = [(48, 64), (64, 48)]
    requests = [
        (encoded(make_image(k, *shapes[k % 2])), {"conf": f"0.00{1 + k % 3}", "iou": f"0.{3 + k % 4}"})
        for k in range(8)
    ]

    def post(web: Any, request: tuple[bytes, dict[str, str]]) -> Any:
        return web.post("/v1/detect/tiny", files={"image": request[0]}, data=request[1]).json()

    with client(max_wait_ms=0) as web:
        alone = [post(web, request) for request in requests]
    with client(max_wait_ms=1000, max_batch=4) as web, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda request: post(web, request), requests))

    assert {response["batch"] for response in alone} == {1}
    assert max(response["batch"] for response in together) > 1
    for one, other in zip(alone, together, strict=True):
        assert len(one["detections"]) == len(other["detections"]) > 0
        for a, b in zip(one["detections"], other["detections"], strict=True):
            assert a["name"] == b["name"]
            np.testing.assert_allclose([a["xmin"], a["ymax"]], [b["xmin"], b["ymax"]], atol=0.01)
            assert abs(a["confidence"] - b["confidence"]) < 1e-4


def test_a_client_that_disconnects_frees_its_slot() -> None:
    """Its task is removed from the queue, and the next client is served."""
    pytest.importorskip("fastapi")
    pytest.importorskip("prometheus_client")
    pytest.importorskip("python_multipart")
    pytest.importorskip("httpx")
    from tests.serve.service import client, encoded, make_image, scope_of

    with client(max_queue=1, max_wait_ms=10_000) as web:
        batcher = web.service.models["tiny"].batcher
        request = web.build_request("POST", "/v1/detect/tiny", files={"image": encoded(make_image())})
        body = [
            {"type": "http.request", "body": request.read(), "more_body": False},
            {"type": "http.disconnect"},
        ]
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            if len(body) == 1:
                while not batcher.waiting:  # it disconnects once its image is in the queue
                    await asyncio.sleep(0.001)
            return body.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = scope_of("/v1/detect/tiny", request.headers["content-type"].encode())
        asyncio.run(asyncio.wait_for(web.app(scope, receive, send), WAIT / 2))

        assert sent[0]["status"] == 499 and batcher.waiting == 0
        with batcher.slot():
            pass
        assert 'status="499"} 1' in web.get("/metrics").text
