"""Activation checkpointing: less memory, equal numbers to the bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from models.yolo import DetectionModel


@pytest.mark.parametrize("cfg", ["yolov5n-LSKA.yaml", "yolov5n.yaml"])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_and_statistics_are_the_same(cfg: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = DetectionModel(cfg, nc=3).train().to(memory_format=layout)
    again = copy.deepcopy(plain)
    again.checkpoint_activations = True
    x = torch.rand(2, 3, 64, 64).to(memory_format=layout)

    for model in (plain, again):
        sum(level.square().mean() for level in model(x)).backward()

    for mine, yours in zip(again.parameters(), plain.parameters(), strict=True):
        assert torch.equal(mine.grad, yours.grad)
    for (name, mine), yours in zip(again.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(mine, yours), name
    assert all(m.momentum == 0.03 for m in again.modules() if isinstance(m, torch.nn.BatchNorm2d))


def test_less_is_saved_for_the_backward_pass() -> None:
    model = DetectionModel("yolov5n.yaml", nc=3).train()
    sizes = {}
    for model.checkpoint_activations in (False, True):
        kept: dict[int, int] = {}

        def keep(value: Tensor, kept: dict[int, int] = kept) -> Tensor:
            kept[value.data_ptr()] = value.numel()
            return value

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            maps = model(torch.rand(1, 3, 128, 128))
        sizes[model.checkpoint_activations] = sum(kept.values())
        del maps

    weights = sum(p.numel() for p in model.parameters())
    assert sizes[True] < 0.5 * sizes[False] + weights
