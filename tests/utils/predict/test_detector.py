from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from utils.predict.detector import same_shape
from utils.predict.predictor import Prepared, prepare_frame
from utils.sources.frame import Frame


def frame(height: int, width: int) -> Frame:
    return Frame(Path("a.png"), np.full((height, width, 3), 90, np.uint8))


@pytest.mark.parametrize(
    ("imgsz", "auto", "shape"),
    [
        ((64, 64), True, (64, 64, 3)),
        ((128, 128), True, (96, 128, 3)),
        ((64, 128), False, (64, 128, 3)),
    ],
)
def test_images_are_letterboxed_to_the_input_size(
    imgsz: tuple[int, int], auto: bool, shape: tuple[int, ...]
) -> None:
    prepared = prepare_frame(frame(40, 60), imgsz, stride=32, auto=auto)
    assert prepared.frame.image.shape == (40, 60, 3)
    assert prepared.letterboxed.shape == shape


def test_neighbours_of_one_shape_form_a_batch() -> None:
    shapes = [1, 1, 1, 2, 2, 1]
    prepared = [Prepared(frame(1, 1), np.zeros((size, 1, 3), np.uint8)) for size in shapes]
    assert [len(group) for group in same_shape(prepared, 2)] == [2, 1, 2, 1]
    assert [len(group) for group in same_shape(prepared)] == [3, 2, 1]
