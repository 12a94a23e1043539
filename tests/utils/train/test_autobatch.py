"""The batch size that --batch-size -1 chooses, for simulated memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from models.yolo import make_model
from tests.studies.classifiers import CONFIG as CLASSIFY_CONFIG
from tests.utils.train.small import CONFIG, SEGMENT_CONFIG, SIZE
from utils.train.build import FALLBACK_BATCH, choose_batch, measure_batch


def _card(start: int, image: int, total: int) -> Callable[[int], int]:
    def memory(size: int) -> int:
        need = start + image * size
        if need > total:
            raise torch.OutOfMemoryError("full")
        return need

    return memory


@pytest.mark.parametrize(
    ("start", "image", "free", "expected"),
    [
        (100, 10, 1000, 70),  # 100 + 70 * 10 = 80 % of 1000
        (100, 100, 1000, 7),
        (100, 300, 1000, 2),  # 4 did not fit
        (900, 200, 1000, 1),
        (0, 1, 10**6, FALLBACK_BATCH),  # more than a thousand: the line is not to be trusted
        (500, 0, 1000, FALLBACK_BATCH),
    ],
)
def test_the_batch_size_uses_most_of_the_memory(start: int, image: int, free: int, expected: int) -> None:
    assert choose_batch(_card(start, image, free), free) == expected


@pytest.mark.parametrize("config", [CONFIG, SEGMENT_CONFIG, CLASSIFY_CONFIG])
def test_models_of_all_tasks_are_measured_and_left_as_they_were(
    config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = iter([110, 120, 140, 180, 260])  # of 1, 2, 4, 8 and 16 images: 100 + 10 for each
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1000, 2000))
    monkeypatch.setattr("torch.cuda.reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr("torch.cuda.max_memory_allocated", lambda device: next(needs))
    for name in ("memory_reserved", "memory_allocated"):
        monkeypatch.setattr(f"torch.cuda.{name}", lambda device: 0)
    model = make_model(config).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}

    assert measure_batch(model, SIZE, None) == 70
    assert not model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
