"""Gates: all are found, an untrained one is 1, a known factor is returned."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.attention.lska import DESIGNS
from models.yolo import DetectionModel, read_config
from studies.explain.layers import find_gates, gate_maps

IMAGE = torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def with_design(design: str) -> DetectionModel:
    content, _ = read_config("yolov5n-LSKA.yaml")
    content["backbone"][-1] = [-1, 1, design, [11]]
    return DetectionModel(content).eval()


@pytest.mark.parametrize("design", DESIGNS)
def test_an_untrained_gate_of_any_design_is_exactly_one(design: str) -> None:
    (gate,) = gate_maps(with_design(design), IMAGE)
    assert gate.block == f"layer 10: {design}, k = 11"
    np.testing.assert_array_equal(gate.factor, np.ones((2, 3), np.float32))
    assert (gate.lowest, gate.highest, gate.change) == (1, 1, 0)


@pytest.mark.parametrize(
    ("cfg", "blocks"),
    [
        ("yolov5n.yaml", []),
        ("yolov5n-SPPFLSKA.yaml", ["layer 9: SPPFLSKA, k = 11"]),
        ("yolov5n-neck-C3LSKA.yaml", [f"layer {i}: C3LSKA, k = 11" for i in (13, 17, 20, 23)]),
        ("yolov5n-head-LSKA.yaml", [f"layer {i}: LSKAttention, k = 11" for i in (24, 25, 26)]),
    ],
)
def test_gates_are_found_in_every_block(cfg: str, blocks: list[str]) -> None:
    model = DetectionModel(cfg).eval()
    assert list(find_gates(model)) == blocks
    assert [gate.block for gate in gate_maps(model, IMAGE)] == blocks


def test_several_gates_of_a_layer_are_numbered_and_their_design_is_named() -> None:
    content, _ = read_config("yolov5n-LSKA.yaml")
    content["depth_multiple"] = 1.0
    content["backbone"][-1] = [-1, 2, "LSKAttention", [7, {"design": "LKA"}]]
    blocks = [f"layer 10: LSKAttention {number} of 2, LKA, k = 7" for number in (1, 2)]
    assert list(find_gates(DetectionModel(content))) == blocks


def test_a_known_factor_gives_the_mean_over_channels_and_its_extremes() -> None:
    model = with_design("LSKA")
    (gate,) = find_gates(model).values()
    factors = torch.ones(1, 256, 2, 3)
    factors[0, :128, 1, 2] = 3  # half of the channels up ...
    factors[0, 128:, 1, 2] = -1  # ... and half down: they cancel in the map
    factors[0, :, 0, 1] = 1.5
    gate.attention = lambda _: factors
    (found,) = gate_maps(model, IMAGE)
    np.testing.assert_allclose(found.factor, [[1, 1.5, 1], [1, 1, 1]])
    assert (found.lowest, found.highest) == (-1, 3)
    assert found.change == pytest.approx((2 + 0.5) / 6)


def test_hooks_are_removed() -> None:
    model = with_design("LSKA")
    gate_maps(model, IMAGE)
    assert not any(module._forward_hooks for module in model.modules())
