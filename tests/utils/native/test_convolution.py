"""Convolutions with their activation, with weights in oneDNN's layout."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import Tensor, nn

from models.blocks.conv import Conv, Projection
from utils.native.norm_silu import PackedConvolution


def fused(act: bool | nn.Module = True, groups: int = 1) -> Conv:
    torch.manual_seed(0)
    block = Conv(16, 32, 3, 2, g=groups, act=act)
    nn.init.normal_(block.bn.running_mean)  # type: ignore[union-attr, arg-type]
    block.eval().fuse()
    return block


def is_packed(block: Conv, x: Tensor) -> bool:
    assert block._packed is not None
    return block._packed.fits(x, block.conv, block.act)


def plain(block: Conv, x: Tensor) -> Tensor:
    with torch.no_grad():
        return block.act(block.conv(x))


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("act", [True, False, nn.ReLU()])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_equals_the_two_layers(groups: int, act: bool | nn.Module, layout: torch.memory_format) -> None:
    block = fused(act, groups).to(memory_format=layout)
    x = torch.rand(2, 16, 13, 10).to(memory_format=layout)

    with torch.inference_mode():
        assert is_packed(block, x)
        assert torch.allclose(block(x), plain(block, x), atol=1e-5)


@pytest.mark.parametrize(
    "change", ["in place", "moved", "half and back", "another layer", "another activation", "data"]
)
def test_changes_of_the_layer_are_noticed(change: str) -> None:
    block, x = fused(), torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        before = block(x)
        if change == "in place":
            block.conv.weight.mul_(2)
        elif change == "moved":
            block.conv.weight.data = block.conv.weight.data * 2
        elif change == "half and back":
            block = block.half().float()
        elif change == "another layer":
            block.conv = nn.Conv2d(16, 32, 3, 2, 1)
        elif change == "another activation":
            block.act = nn.ReLU()
        else:  # does not change the version of the tensor
            block.conv.weight.data.mul_(2)
            assert block._packed is not None
            block._packed.forget()
        after = block(x)

    assert not torch.equal(before, after)
    assert torch.allclose(after, plain(block, x), atol=1e-6)


def test_weights_of_inference_mode_have_no_version_and_are_not_packed() -> None:
    x = torch.rand(1, 16, 8, 8)
    with torch.inference_mode():
        block = fused()
        assert not is_packed(block, x)
        block(x)
        block.conv.weight.mul_(2)
        assert torch.allclose(block(x), block.act(block.conv(x)), atol=1e-6)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda block: pickle.loads(pickle.dumps(block))])
def test_a_copy_has_weights_of_its_own(copied) -> None:  # type: ignore[no-untyped-def]
    block, x = fused(), torch.rand(1, 16, 8, 8)
    with torch.no_grad():
        before = block(x)
        twin = copied(block)
        twin.conv.weight.zero_()

        assert torch.allclose(twin(x), plain(twin, x), atol=1e-6)
        assert torch.equal(block(x), before)


def test_pytorchs_operators_run_where_it_cannot() -> None:
    block, x = fused(), torch.rand(1, 16, 8, 8)

    assert not is_packed(block, x)  # gradients
    assert block(x).grad_fn is not None
    with torch.no_grad():
        assert not is_packed(block, x.double())
        assert not is_packed(block, x[0])
        assert block(x[0]).shape == (32, 4, 4)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not is_packed(block, x)
        assert not is_packed(fused(nn.Hardswish()), x)
        assert block.double()(x.double()).dtype == torch.float64


def test_hooks_are_called() -> None:
    block = fused()
    called: list[str] = []
    block.act.register_forward_hook(lambda *_: called.append("act"))
    block.conv.register_forward_pre_hook(lambda *_: called.append("conv"))
    with torch.no_grad():
        block(torch.rand(1, 16, 8, 8))

    assert called == ["conv", "act"]


def test_a_projection_is_a_convolution() -> None:
    torch.manual_seed(0)
    layer, x = Projection(16, 24), torch.rand(2, 16, 5, 5).to(memory_format=torch.channels_last)
    with torch.no_grad():
        before = layer(x)
        layer.fuse()
        assert isinstance(layer._packed, PackedConvolution)
        assert torch.allclose(layer(x), before, atol=1e-6)
    assert list(layer.state_dict()) == ["weight", "bias"]
