"""Convolutions with their activation in one call of oneDNN."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from models.blocks.conv import Conv
from utils.native.convolution import PackedConvolution


def fused(act: bool | nn.Module = True, groups: int = 1) -> Conv:
    torch.manual_seed(0)
    block = Conv(16, 32, 3, 2, g=groups, act=act)
    nn.init.normal_(block.bn.running_mean)  # type: ignore[union-attr, arg-type]
    block.eval().fuse()
    return block


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("act", [True, False, nn.ReLU()])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_the_two_layers(groups: int, act: bool | nn.Module, layout: torch.memory_format) -> None:
    block = fused(act, groups).to(memory_format=layout)
    x = torch.rand(2, 16, 13, 10).to(memory_format=layout)
    assert block._packed is not None

    with torch.inference_mode():
        assert block._packed.fits(x)
        assert torch.allclose(block(x), block.act(block.conv(x)), atol=1e-5)


def test_follows_the_weights() -> None:
    block, x = fused(), torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        before = block(x)
        block.conv.weight.mul_(2)
        changed = block(x)
        block.conv.weight.data = block.conv.weight.data.clone()
        moved = block(x)
        known = block.act(block.conv(x))

    assert not torch.allclose(before, changed)
    assert torch.allclose(changed, known, atol=1e-5) and torch.equal(changed, moved)


def test_a_copy_has_weights_of_its_own() -> None:
    block, x = fused(), torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        before = block(x)
        twin = copy.deepcopy(block)
        twin.conv.weight.zero_()
        twin(x)

        assert torch.equal(block(x), before)
        assert torch.allclose(twin(x), twin.act(twin.conv(x)), atol=1e-6)


def test_gives_way_where_gradients_or_other_numbers_are_wanted() -> None:
    block, x = fused(), torch.rand(1, 16, 8, 8)
    packed = block._packed
    assert packed is not None

    assert not packed.fits(x)  # gradients
    assert block(x).grad_fn is not None
    with torch.no_grad():
        assert not packed.fits(x.double())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not packed.fits(x)
        assert block.double()(x.double()).dtype == torch.float64


def test_an_activation_that_onednn_does_not_know() -> None:
    assert PackedConvolution.of(nn.Conv2d(4, 4, 1), nn.Hardswish()) is None
    assert fused(nn.Hardswish())._packed is None
