"""The batch size that --batch-size -1 chooses, for simulated memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from utils.train.build import FALLBACK_BATCH, choose_batch


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
