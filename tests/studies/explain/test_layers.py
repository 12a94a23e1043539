"""Layers by index and by name."""

from __future__ import annotations

import pytest
import torch

from models.yolo import DetectionModel, read_config
from studies.explain.layers import describe_layer, find_layers, layer_strides, run_and_keep
from utils.base.errors import ConfigError


@pytest.fixture(scope="module")
def plain() -> DetectionModel:
    return DetectionModel("yolov5n.yaml").eval()


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (["backbone"], [9]),
        (["detect"], [17, 20, 23]),
        (["p3"], [17]),
        (["P5", "4", "backbone"], [23, 4, 9]),
        (["9", "backbone"], [9]),
    ],
)
def test_layers_are_found_by_index_and_by_name(
    plain: DetectionModel, words: list[str], layers: list[int]
) -> None:
    assert find_layers(plain, words) == layers


@pytest.mark.parametrize("word", ["24", "-1", "p6", "sppf", "²", ""])
def test_an_unknown_layer_is_an_error_that_lists_the_layers(plain: DetectionModel, word: str) -> None:
    with pytest.raises(ConfigError, match=rf"--layer {word}: yolov5n.yaml has .*0-23.*backbone.*p3, p4, p5"):
        find_layers(plain, [word])


@pytest.mark.parametrize(
    ("cfg", "layer"),
    [
        ("yolov5n-LSKA.yaml", 10),
        ("yolov5n-SPPFLSKA.yaml", 9),
        ("yolov5n-head-LSKA.yaml", 9),
        ("yolov5n6.yaml", 11),
        ("yolov3-tiny.yaml", 12),
    ],
)
def test_the_end_of_the_backbone_corresponds_in_every_model(cfg: str, layer: int) -> None:
    with torch.device("meta"):
        model = DetectionModel(cfg)
    assert find_layers(model, ["backbone"]) == [layer]


def test_attention_at_the_start_of_the_head_belongs_to_the_backbone() -> None:
    content, _ = read_config("yolov5n-LSKA.yaml")
    content["head"].insert(0, content["backbone"].pop())
    assert find_layers(DetectionModel(content), ["backbone"]) == [10]


def test_strides_and_descriptions(plain: DetectionModel) -> None:
    strides = layer_strides(plain)
    assert [strides[i] for i in (0, 2, 4, 9, 17, 20, 23)] == [2, 4, 8, 32, 8, 16, 32]
    assert 24 not in strides
    assert describe_layer(plain, 9) == "layer 9: SPPF"


def test_outputs_of_layers(plain: DetectionModel) -> None:
    kept, (decoded, _) = run_and_keep(plain, torch.rand(1, 3, 64, 96), [9, 17])
    assert kept[9].shape == (1, 256, 2, 3)
    assert kept[17].shape == (1, 64, 8, 12)
    assert decoded.shape == (1, 3 * (96 + 24 + 6), 85)
