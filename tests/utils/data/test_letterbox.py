from typing import Any

import numpy as np
import pytest

from tests.known import golden, needs_shared
from tests.utils.data.image_files import assert_same_image, golden_image
from utils.base.errors import ConfigError
from utils.data.letterbox import check_img_size, letterbox

GOLDEN = golden("01_letterbox")


@needs_shared
@pytest.mark.parametrize("name", GOLDEN["source_images"])
def test_letterbox_equals_the_original(name: str) -> None:
    image = golden_image(name)
    for case in (case for case in GOLDEN["cases"] if case["image"] == name):
        flags: dict[str, Any] = {key: case[key] for key in ("auto", "scaleup", "stride") if key in case}
        result, ratio, pad = letterbox(
            image, case["new_shape"], scale_fill=case.get("scaleFill", False), **flags
        )
        assert (list(ratio), list(pad)) == (case["ratio"], case["pad"])
        assert_same_image(result, case)


@pytest.mark.parametrize(("size", "stride", "floor", "expected"), GOLDEN["check_img_size"])
def test_image_sizes_are_rounded_up(size: Any, stride: int, floor: int, expected: Any) -> None:
    assert check_img_size(size, stride, floor) == expected


def test_a_size_of_zero_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--img-size 0"):
        check_img_size(0)


def test_a_very_thin_image_keeps_one_row() -> None:
    result, _, _ = letterbox(np.zeros((1, 2000, 3), np.uint8), 640, auto=False)
    assert result.shape == (640, 640, 3)
    assert (result == 0).all((1, 2)).sum() == 1
