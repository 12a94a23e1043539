import threading

import pytest
import torch

from utils.predict import parallel
from utils.predict.parallel import WorkerPool

CPU = torch.device("cpu")


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixteen threads for PyTorch, whatever the machine has; nobody hears of changes but this test."""
    before = torch.get_num_threads()
    torch.set_num_threads(16)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
def test_lanes_share_the_threads_and_give_them_back() -> None:
    crew = WorkerPool(CPU)
    assert crew.count == parallel.MOST
    together = threading.Barrier(crew.count)

    def work(item: int) -> tuple[int, int]:
        together.wait(5)  # all at a time, or never
        return item, torch.get_num_threads()

    with crew.pool() as pool:
        results = list(crew.map(work, range(8), pool))
    assert results == [(item, 16 // parallel.MOST) for item in range(8)]
    assert torch.get_num_threads() == 16
    new: list[int] = []
    thread = threading.Thread(target=lambda: new.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert new == [16]


@pytest.mark.usefixtures("threads")
def test_one_image_and_a_gpu_have_one_lane_in_the_callers_thread() -> None:
    assert WorkerPool(torch.device("cuda", 0)).count == 1
    crew = WorkerPool(CPU, most=1)
    assert crew.count == 1
    with crew.pool() as pool:
        assert pool is None  # nobody disturbs the threads of the model
        assert list(crew.map(lambda _: threading.get_ident(), range(2), pool)) == [threading.get_ident()] * 2
    with WorkerPool(torch.device("cuda", 0)).pool() as pool:
        assert pool is not None
