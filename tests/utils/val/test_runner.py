"""Batches that are run in parts, side by side: the same results, in order, from several threads."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.backends.pytorch import PyTorchBackend
from models.yolo import DetectionModel
from tests.utils.val.fakes import LABELS, NAMES, FakeModel, batch
from utils.base.parallel import MAX_WORKERS
from utils.base.paths import ROOT
from utils.data.loader import Batch
from utils.loggers.callbacks import Callbacks
from utils.val.evaluate import EvalConfig, Evaluator, evaluate
from utils.val.runner import Found, ModelRunner, predict_batches

CPU = torch.device("cpu")


@pytest.fixture(params=[2, 3])
def cores(request: pytest.FixtureRequest) -> Iterator[int]:
    """Let PyTorch use a number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> DetectionModel:
    torch.manual_seed(0)
    return DetectionModel("yolov5n.yaml", nc=len(NAMES)).eval()


def random_batches(*sizes: int) -> list[Batch]:
    """Make batches of random images, each with the labels of `LABELS` for the first two."""
    made = []
    for number, size in enumerate(sizes):
        labels = [row for row in LABELS if row[0] < size]
        images = torch.randint(256, (size, 3, 64, 64), generator=torch.Generator().manual_seed(number))
        made.append(batch(labels, size, first=10 * number)._replace(images=images.byte()))
    return made


class SumOfMaps:
    """A loss of the mean of all maps, which depends on the whole batch."""

    def __call__(self, maps: list[Tensor], targets: Tensor) -> tuple[Tensor, Tensor]:
        value = torch.stack([level.mean() for level in maps]) * len(targets)
        return value.sum(), value


@pytest.mark.parametrize("hybrid", [False, True])
def test_parts_side_by_side_give_the_result_of_whole_batches(
    model: DetectionModel, cores: int, hybrid: bool
) -> None:
    batches = random_batches(5, 1, 4)
    started: list[int] = []
    seen: list[list[str]] = []

    class Order(Callbacks):
        def on_val_batch_start(self, batch: int) -> None:
            started.append(batch)

        def on_val_batch_end(self, batch: int, images: Tensor, targets: Tensor, paths: Any) -> None:
            assert batch == len(seen) and batch in started and len(images) == len(paths)
            seen.append([*paths])

    def measured(one_by_one: bool) -> Any:
        config = EvalConfig(hybrid=hybrid, one_by_one=one_by_one)
        hooks = None if one_by_one else Order()
        return evaluate(model, batches, NAMES, config, device=CPU, loss=SumOfMaps(), callbacks=hooks)

    whole, parts = measured(True), measured(False)

    assert started == [0, 1, 2]
    assert seen == [each.paths for each in batches] and torch.get_num_threads() == cores
    assert parts.seen == 10 and parts.matches.paths == whole.matches.paths
    assert parts.losses == pytest.approx(whole.losses, rel=1e-5) and whole.losses[0] != 0
    assert parts.results == pytest.approx(whole.results, rel=1e-5)
    assert (parts.map50 > 0.3) == hybrid  # the true labels are among the detections
    for name in (
        "confidence",
        "boxes",
    ):  # sorted, as rounding may exchange detections of nearly equal confidence
        one, other = (np.sort(getattr(each.matches, name), axis=0) for each in (parts, whole))
        np.testing.assert_allclose(one, other, atol=1e-2)


def test_parts_run_in_several_threads_and_are_as_many_as_workers(cores: int) -> None:
    threads, parts = set(), []
    together = threading.Barrier(cores, timeout=30)

    def predict(one: Batch, part: slice) -> Found:
        assert torch.is_inference_mode_enabled()
        if parts:  # all but the first
            together.wait()  # passes only if so many parts run at the same time
            assert torch.get_num_threads() == 1
        threads.add(threading.current_thread())
        parts.append(part)
        images = [torch.full((0, 6), index) for index in range(len(one.paths))[part]]
        return Found(images, one.images[part].float(), seconds=(1.0, 2.0, 3.0))

    batches = random_batches(2 * cores, 1, 2 * cores)
    results = [*predict_batches(predict, batches, CPU)]

    assert len(threads) == cores + 1 and {part.stop - part.start for part in parts} == {1, 2}
    for one, (same, found) in zip(batches, results, strict=True):
        assert same is one and len(found.images) == len(one.paths)
        assert torch.equal(found.raw, one.images.float())
        share = -(-len(one.paths) // 2) / cores  # seconds are those of all workers, for each of them
        assert found.seconds == pytest.approx((share, 2 * share, 3 * share))


def test_large_images_are_run_in_smaller_parts(cores: int) -> None:
    images = torch.zeros(7, 3, 640, 320, dtype=torch.uint8)
    large = batch([], 7)._replace(images=images)
    sizes = []

    def predict(one: Batch, part: slice) -> Found:
        sizes.append(len(one.images[part]))
        return Found([torch.zeros(0, 6)] * len(one.images[part]))

    [(_, found)] = predict_batches(predict, [large], CPU)

    assert sum(sizes) == len(found.images) == 7 and max(sizes) == (4 if cores == 2 else 3)
    assert found.raw is None and found.protos == []


def test_an_error_in_a_thread_is_raised_and_stops_the_others(model: DetectionModel, cores: int) -> None:
    calls = []

    class Broken(Evaluator):
        def predict(self, batch: Batch, part: slice) -> Found:
            calls.append(part)
            raise MemoryError("no memory for a map")

    with pytest.raises(MemoryError, match="no memory for a map"):
        evaluate(model, random_batches(*[6] * 20), NAMES, device=CPU, evaluator=Broken)
    assert len(calls) <= 2 * cores + 1 and torch.get_num_threads() == cores


def test_only_known_models_without_hooks_run_side_by_side(model: DetectionModel) -> None:
    backend = PyTorchBackend.from_model(model)
    assert ModelRunner(model, CPU).most_workers == ModelRunner(backend, CPU).most_workers == MAX_WORKERS

    hook = model.model[3].register_forward_hook(lambda *_: None)
    assert ModelRunner(model, CPU).most_workers == ModelRunner(backend, CPU).most_workers == 1
    hook.remove()
    assert ModelRunner(FakeModel([]), CPU).most_workers == 1  # of others, such as one that counts its calls
    assert ModelRunner(lambda images: images, CPU).most_workers == 1


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="settings of the GNU C library")
def test_memory_that_is_kept_for_the_next_tensors_can_be_returned() -> None:
    code = (
        "import torch\n"
        "from utils.base.device import keep_freed_memory, return_freed_memory\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * 4096 >> 20\n"
        "assert keep_freed_memory()\n"
        "x = torch.ones(100 << 18); del x\n"
        "kept = resident(); return_freed_memory(); print(kept - resident())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) > 90  # of 100 MiB
