from typing import Any

import numpy as np
import pytest

from tests.known import golden
from utils.data.dataset import plan_rect

GOLDEN = golden("01_letterbox")


@pytest.mark.parametrize("case", GOLDEN["rect_batch_shapes"], ids=lambda case: str(case["img_size"]))
def test_batch_shapes_equal_the_original(case: dict[str, Any]) -> None:
    sizes = np.array(GOLDEN["rect_batch_shapes_input_wh"], float)
    plan = plan_rect(sizes, case["batch_size"], case["img_size"], case["stride"], case["pad"])
    assert plan.order.tolist() == case["order"]
    assert plan.shapes.tolist() == case["batch_shapes_hw"]
    assert plan.batch.tolist() == [i // case["batch_size"] for i in range(len(sizes))]


@pytest.mark.parametrize(
    ("tallness", "shape"), [([0.75], (512, 672)), ([1.33], (672, 512)), ([0.75, 1, 1.33], (672, 672))]
)
def test_batch_shapes_are_padded_and_rounded_up(tallness: list[float], shape: tuple[int, int]) -> None:
    sizes = np.array([(100, 100 * ratio) for ratio in tallness])
    assert plan_rect(sizes, 4, 640, 32, 0.5).shapes.tolist() == [list(shape)]
