from __future__ import annotations

import pytest

from utils.base.errors import ConfigError
from utils.base.options import options_from, parse_options
from utils.predict.detect_options import DetectOptions


def options(**keywords: object) -> DetectOptions:
    return options_from(DetectOptions, keywords)


def test_keywords_take_single_values_where_the_command_line_takes_several() -> None:
    got = options(weights="a.pt", imgsz=320, classes=3)
    assert (got.weights, got.imgsz, got.classes) == (["a.pt"], (320, 320), [3])
    assert options(imgsz=[320, 640]).imgsz == (320, 640)
    assert options(img=64).imgsz == (64, 64)


def test_keywords_and_the_command_line_have_the_same_defaults() -> None:
    assert options() == parse_options(DetectOptions, [])
    assert (options().imgsz, options().classes, options().conf_thres) == ((640, 640), None, 0.25)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conf_thres", 25),
        ("iou_thres", -0.1),
        ("max_det", 0),
        ("vid_stride", 0),
        ("batch_size", -1),
        ("line_thickness", -1),
        ("imgsz", [1, 2, 3]),
        ("imgsz", 0),
        ("save_format", 2),
        ("classes", [-1]),
        ("weights", []),
    ],
)
def test_a_value_out_of_range_is_an_error_that_names_the_flag(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} "):
        options(**{name: value})
