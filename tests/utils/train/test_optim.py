"""The optimizer's groups, and fused kernels compared with plain ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from utils.train.hyp import check_hyp
from utils.train.optim import make_optimizer, parameter_groups, restore_optimizer

HYP = check_hyp({}, "defaults")


def _net() -> nn.Sequential:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 4, 3))
    return net.to(memory_format=torch.channels_last)


def _train(net: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images = torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        net(
            images.to(next(net.parameters()).dtype, memory_format=torch.channels_last)
        ).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()


def test_biases_weights_norms_in_this_order() -> None:
    net = _net()
    biases, weights, norms = parameter_groups(net)

    assert [p.shape for p in biases] == [net[1].bias.shape, net[3].bias.shape]
    assert [p.shape for p in weights] == [net[0].weight.shape, net[3].weight.shape]
    assert [p.shape for p in norms] == [net[1].weight.shape]


def test_parameters_of_other_names_decay_and_shared_layers_occur_once() -> None:
    attention = nn.MultiheadAttention(4, 2)  # in_proj_weight, in_proj_bias
    biases, weights, norms = parameter_groups(nn.ModuleList([attention, attention]))

    assert (len(biases), len(weights), len(norms)) == (1, 3, 0)


@pytest.mark.parametrize("name", ["SGD", "Adam", "AdamW"])
def test_only_weights_decay(name: str) -> None:
    optimizer = make_optimizer(_net(), name, HYP, batch_size=48)

    assert [group["weight_decay"] for group in optimizer.param_groups] == [0, 0.0005 * 48 / 64, 0]


def test_fused_steps_equal_plain_ones_on_channels_last_weights() -> None:
    fused, plain = _net().double(), _net().double()  # so that rounding can't hide or feign a difference
    optimizer = make_optimizer(fused, "SGD", HYP, batch_size=64)
    groups = [
        {"params": params, "weight_decay": 0.0005 * (index == 1)}
        for index, params in enumerate(parameter_groups(plain))
    ]
    _train(fused, optimizer, range(5))
    _train(plain, torch.optim.SGD(groups, lr=0.01, momentum=0.937, nesterov=True), range(5))

    for one, two in zip(fused.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_a_restored_optimizer_continues_bit_for_bit(name: str) -> None:
    through, resumed = _net(), _net()
    one = make_optimizer(through, name, HYP, batch_size=64)
    two = make_optimizer(resumed, name, HYP, batch_size=64)
    _train(through, one, range(3))
    resumed.load_state_dict(through.state_dict())
    contiguous = one.state_dict()  # as a checkpoint that lost the memory order would bring it
    contiguous["state"] = {
        index: {key: value.clone(memory_format=torch.contiguous_format) for key, value in buffers.items()}
        for index, buffers in contiguous["state"].items()
    }
    restore_optimizer(two, contiguous)
    for net, optimizer in ((through, one), (resumed, two)):
        _train(net, optimizer, range(3, 6))

    for a, b in zip(through.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
