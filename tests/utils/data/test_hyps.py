from pathlib import Path

import pytest

from utils.base.yaml_io import read_yaml

HYPS = Path(__file__).parents[3] / "data/hyps"
LOW = read_yaml(HYPS / "hyp.scratch-low.yaml")

# formats, section 2: what differs from scratch-low
DIFFERENCES = {
    "scratch-low": {},
    "scratch-med": {"lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1},
    "scratch-high": {"lrf": 0.1, "cls": 0.3, "obj": 0.7, "scale": 0.9, "mixup": 0.1, "copy_paste": 0.1},
    "no-augmentation": {
        "lrf": 0.1, "cls": 0.3, "obj": 0.7, "hsv_h": 0, "hsv_s": 0, "hsv_v": 0,
        "translate": 0, "scale": 0, "fliplr": 0, "mosaic": 0,
    },
    "VOC": {
        "lr0": 0.00334, "lrf": 0.15135, "momentum": 0.74832, "weight_decay": 0.00025, "warmup_epochs": 3.3835,
        "warmup_momentum": 0.59462, "warmup_bias_lr": 0.18657, "box": 0.02, "cls": 0.21638, "cls_pw": 0.5,
        "obj": 0.51728, "obj_pw": 0.67198, "anchor_t": 3.3744, "anchors": 3.412, "hsv_h": 0.01041,
        "hsv_s": 0.54703, "hsv_v": 0.27739, "translate": 0.04591, "scale": 0.75544, "mosaic": 0.85834,
        "mixup": 0.04266,
    },
    "Objects365": {
        "lr0": 0.00258, "lrf": 0.17, "momentum": 0.779, "weight_decay": 0.00058, "warmup_epochs": 1.33,
        "warmup_momentum": 0.86, "warmup_bias_lr": 0.0711, "box": 0.0539, "cls": 0.299, "cls_pw": 0.825,
        "obj": 0.632, "anchor_t": 3.44, "anchors": 3.2, "hsv_h": 0.0188, "hsv_s": 0.704, "hsv_v": 0.36,
        "translate": 0.0902, "scale": 0.491,
    },
}  # fmt: skip


def test_the_six_files_of_the_original_exist() -> None:
    assert {path.name for path in HYPS.iterdir()} >= {f"hyp.{name}.yaml" for name in DIFFERENCES}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_values_equal_the_original(name: str) -> None:
    hyp = read_yaml(HYPS / f"hyp.{name}.yaml")
    assert {key: value for key, value in hyp.items() if LOW.get(key) != value} == DIFFERENCES[name]
    assert set(LOW) <= set(hyp)


def test_the_default_is_that_of_the_table() -> None:
    assert list(LOW.values()) == [
        0.01, 0.01, 0.937, 0.0005, 3, 0.8, 0.1, 0.05, 0.5, 1, 1, 1, 0.2, 4, 0,
        0.015, 0.7, 0.4, 0, 0.1, 0.5, 0, 0, 0, 0.5, 1, 0, 0,
    ]  # fmt: skip
