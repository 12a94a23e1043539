"""--attention: other arguments for the large kernel blocks of a yaml."""

from __future__ import annotations

import pytest

from models.attention.lska import LKA, LSKA
from models.config import parse_settings, with_attention
from models.yolo import DetectionModel, read_config
from utils.base.errors import ConfigError


def test_settings_are_read_word_by_word() -> None:
    assert parse_settings(["k=23,design=LKA", "init=paper"]) == {"k": 23, "design": "LKA", "init": "paper"}


@pytest.mark.parametrize("word", ["k=wide", "kernel=3", "k", "design=SKA", "k="])
def test_an_invalid_setting_is_named(word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        parse_settings([word])


def test_the_block_after_sppf_changes_design_and_kernel() -> None:
    config, _ = read_config("yolov5n-LSKA.yaml")
    changed = with_attention(config, {"design": "LKA", "k": 23})
    model = DetectionModel(changed)
    assert type(model.model[10]) is LKA
    assert model.model[10].conv_spatial.kernel_size == (7, 7)
    assert config["backbone"][10][2:] == ["LSKA", [11]], "the yaml itself stays as it is"


@pytest.mark.parametrize("name", ["SPPFLSKA", "backbone-C3LSKA", "neck-C3LSKA", "head-LSKA"])
def test_blocks_with_a_gate_inside_get_the_kernel(name: str) -> None:
    config, _ = read_config(f"yolov5n-{name}.yaml")
    model = DetectionModel(with_attention(config, {"k": 35, "design": "LSKA", "init": "paper"}))
    gates = [module for module in model.modules() if isinstance(module, LSKA)]
    assert gates
    assert {gate.k for gate in gates} == {35}


def test_another_design_keeps_the_arguments_that_it_has() -> None:
    rows = {"backbone": [[-1, 1, "LSKA", [11, 2, "paper"]], [-1, 1, "C3LSKA", [64, {"k": 23}]]], "head": []}
    changed = with_attention(rows, {"design": "SE", "r": 4})["backbone"]
    assert [row[2:] for row in changed] == [
        ["SE", [{"init": "paper", "r": 4}]],
        ["C3LSKA", [64, {"k": 23, "design": "SE", "r": 4}]],
    ]
    deep = with_attention({"backbone": changed[:1], "head": []}, {"design": "Depthwise", "k": 7})["backbone"]
    assert deep[0][2:] == ["Depthwise", [{"init": "paper", "k": 7}]]


def test_an_unknown_argument_of_a_block_is_named() -> None:
    config, _ = read_config("yolov5-van-tiny.yaml")
    with pytest.raises(ConfigError, match="VANStage has no argument init"):
        with_attention(config, {"init": "paper"})


def test_a_model_without_attention_is_rejected() -> None:
    config, name = read_config("yolov5n.yaml")
    with pytest.raises(ConfigError, match=r"yolov5n\.yaml has no attention block"):
        with_attention({**config, "yaml_file": name}, {"k": 7})
