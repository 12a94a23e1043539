"""Fused batch norm and SiLU against PyTorch's operators: values, gradients, running statistics."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.conv import Conv, batch_norm
from utils.native.norm_silu import fits, norm_silu


def make_norm(channels: int) -> nn.BatchNorm2d:
    norm = batch_norm(channels)
    nn.init.uniform_(norm.weight, 0.5, 1.5)
    nn.init.normal_(norm.bias)
    return norm


def run(one_pass: bool, x: Tensor, norm: nn.BatchNorm2d, grad: Tensor) -> list[Tensor]:
    norm = copy.deepcopy(norm).to(x.dtype)
    x = x.detach().requires_grad_()
    y = norm_silu(x, norm) if one_pass else F.silu(norm(x))
    y.backward(grad.to(x.dtype))
    values = [y.detach(), x.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var]
    assert norm.num_batches_tracked is not None and int(norm.num_batches_tracked) == 1
    assert all(value is not None for value in values)
    return values  # type: ignore[return-value]


@pytest.mark.parametrize(
    "shape", [(2, 16, 9, 7), (16, 32, 40, 40), (3, 48, 20, 20), (1, 1024, 5, 5), (1, 16, 1, 2)]
)
@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_equals_batch_norm_and_silu(shape: tuple[int, int, int, int], shift: float) -> None:
    """Compare with float64: the error must not exceed PyTorch's in float32, or rounding."""
    torch.manual_seed(0)
    x = (torch.randn(shape) * 3 + shift).to(memory_format=torch.channels_last)
    norm, grad = make_norm(shape[1]), torch.randn(shape)
    assert fits(x, norm, nn.SiLU())

    truth = run(False, x.double(), norm, grad)
    theirs = run(False, x, norm, grad)
    ours = run(True, x, norm, grad)

    for mine, yours, true in zip(ours, theirs, truth, strict=True):
        size = max(1, float(true.abs().max()))
        mine_off, yours_off = float((mine - true).abs().max()), float((yours - true).abs().max())
        assert mine_off <= max(2 * yours_off, 2e-6 * size)


def test_extreme_values_stay_finite() -> None:
    x = torch.tensor([-1e4, -200.0, -90.0, 0.0, 90.0, 200.0, 1e4, 1.0]).view(1, 1, 2, 4).repeat(1, 16, 1, 1)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    norm = batch_norm(16)
    norm.weight.data.fill_(300)

    y = norm_silu(x, norm)
    y.sum().backward()

    assert x.grad is not None and y.isfinite().all() and x.grad.isfinite().all()
    assert torch.allclose(y, F.silu(copy.deepcopy(norm)(x)), rtol=1e-4, atol=1e-4)


def test_nan_is_propagated() -> None:
    x = torch.zeros(1, 16, 4, 4).to(memory_format=torch.channels_last)
    x[0, 3, 1, 1] = float("nan")

    y = norm_silu(x, batch_norm(16))

    assert y[:, 3].isnan().all() and not y[:, :3].isnan().any()


def test_a_gradient_that_is_part_of_a_wider_map() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 32, 8, 8).to(memory_format=torch.channels_last)
    wide = torch.randn(2, 64, 8, 8).to(memory_format=torch.channels_last)
    norm = make_norm(32)

    part = run(True, x, norm, wide[:, 16:48])
    whole = run(True, x, norm, wide[:, 16:48].clone(memory_format=torch.channels_last))

    assert all(torch.equal(a, b) for a, b in zip(part, whole, strict=True))


def test_results_are_equal_to_the_bit_on_any_number_of_threads() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, 32, 33, 31).to(memory_format=torch.channels_last)
    norm, grad, threads, runs = make_norm(32), torch.randn(4, 32, 33, 31), torch.get_num_threads(), []
    try:
        for number in (1, 2, 3):
            torch.set_num_threads(number)
            runs.append(run(True, x, norm, grad))
    finally:
        torch.set_num_threads(threads)

    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize(
    "case", ["evaluation", "contiguous", "double", "13 channels", "frozen", "other activation", "hook"]
)
def test_pytorchs_operators_run_where_it_cannot(case: str) -> None:
    channels = 13 if case == "13 channels" else 16
    x = torch.rand(2, channels, 6, 6).to(memory_format=torch.channels_last)
    norm, act = batch_norm(channels), nn.SiLU()
    other: nn.Module = nn.ReLU() if case == "other activation" else act
    if case in ("evaluation", "frozen"):
        norm.eval()
    elif case == "contiguous":
        x = x.contiguous()
    elif case == "double":
        x, norm = x.double(), norm.double()
    elif case == "hook":
        norm.register_forward_hook(lambda *_: None)

    assert not fits(x, norm, other)


def test_a_convolution_block_trains_equally_with_and_without_it() -> None:
    torch.manual_seed(0)
    block = Conv(16, 32, 3).train()
    twin = copy.deepcopy(block)
    x = torch.rand(2, 16, 12, 12)
    block(x.to(memory_format=torch.channels_last)).square().sum().backward()
    twin(x).square().sum().backward()

    for mine, yours in zip(block.parameters(), twin.parameters(), strict=True):
        assert torch.allclose(mine.grad, yours.grad, rtol=1e-3, atol=1e-3 * float(yours.grad.abs().max()))
    assert torch.allclose(block.bn.running_var, twin.bn.running_var, rtol=1e-5)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_hooks_of_both_modules_are_called(layout: torch.memory_format) -> None:
    block = Conv(16, 16, 3, act=nn.SiLU()).train()
    called: list[str] = []
    block.act.register_forward_hook(lambda *_: called.append("act"))
    block.bn.register_full_backward_hook(lambda *_: called.append("bn"))  # type: ignore[union-attr]

    block(torch.rand(1, 16, 6, 6, requires_grad=True).to(memory_format=layout)).sum().backward()

    assert called == ["act", "bn"]
