import pytest

import detect
from utils.base.errors import ConfigError
from utils.predict.detect_options import DetectOptions


def options(**kwargs) -> DetectOptions:
    return DetectOptions(**{**vars(detect.make_parser().parse_args([])), **kwargs})


def test_loose_values_are_brought_into_form() -> None:
    got = options(weights="a.pt", imgsz=320, classes=3)
    assert (got.weights, got.imgsz, got.classes) == (["a.pt"], (320, 320), [3])
    assert options(imgsz=[320, 640]).imgsz == (320, 640)
    assert options().imgsz == (640, 640)
    assert options().classes is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("conf_thres", 25),
        ("iou_thres", -0.1),
        ("max_det", 0),
        ("vid_stride", 0),
        ("batch_size", -1),
        ("line_thickness", 0),
        ("imgsz", [1, 2, 3]),
        ("imgsz", 0),
        ("save_format", 2),
        ("classes", [-1]),
        ("weights", []),
    ],
)
def test_impossible_values_name_the_flag(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')} "):
        options(**{name: value})
