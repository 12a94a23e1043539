"""The four designs: published numbers, exact windows, legal sizes, identity initialisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from models.attention.gates import make_gate
from models.attention.lska import DESIGNS, LSKA, taps
from models.attention.lska_blocks import C3LSKA, SPPFLSKA, LSKAttention
from models.blocks.csp import C3
from models.blocks.pool import SPPF
from tests.known import arrays, golden
from utils.base.errors import ConfigError

PUBLISHED = [7, 11, 23, 35, 41, 53]


def with_published_weights(block: nn.Module, prefix: str) -> nn.Module:
    state = {k: torch.from_numpy(v) for k, v in arrays("10_lska").items() if k.startswith(f"{prefix}/state/")}
    block.load_state_dict({k.removeprefix(f"{prefix}/state/"): v for k, v in state.items()})
    return block


@pytest.mark.parametrize("name", ["LSKA", "Attention"])
@pytest.mark.parametrize("k", PUBLISHED)
def test_equals_the_authors_module(k: int, name: str) -> None:
    known, case = arrays("10_lska"), golden("10_lska")["cases"][f"k{k}/{name}"]
    block = with_published_weights(LSKA(8, k) if name == "LSKA" else LSKAttention(8, k), f"k{k}/{name}")
    assert [[key, list(v.shape)] for key, v in block.state_dict().items()] == case["state_dict"]

    for suffix in ("", "_tiny") if name == "LSKA" else ("",):
        x = torch.from_numpy(known[f"input{suffix}"]).requires_grad_()
        y = block(x)
        reference = known[f"k{k}/{name}/output{suffix}"]
        assert np.abs(y.detach().numpy() - reference).max() <= 1e-5 * max(1, np.abs(reference).max())
        if not suffix:
            y.square().sum().backward()
            assert float(x.grad.norm()) == pytest.approx(case["input_grad_norm"], rel=1e-4)
            for key, value in block.named_parameters():
                assert float(value.grad.norm()) == pytest.approx(case["param_grad_norms"][key], rel=1e-4)


@pytest.mark.parametrize("k", PUBLISHED)
@pytest.mark.parametrize("dim", [8, 64, 512])
def test_parameter_counts(k: int, dim: int) -> None:
    known = golden("10_lska")["param_counts"][f"k{k}"][f"dim{dim}"]
    assert sum(p.numel() for p in LSKA(dim, k).parameters()) == known["LSKA"]
    assert sum(p.numel() for p in LSKAttention(dim, k).parameters()) == known["Attention"]


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("k", [7, 11, 17, 23, 29, 35])
def test_a_pixel_sees_exactly_its_kernel_window(design: str, k: int) -> None:
    image = torch.rand(1, 4, 61, 61, requires_grad=True)
    make_gate(design, 4, k, init="paper").attention(image)[0, :, 30, 30].sum().backward()

    assert image.grad is not None
    rows, columns = torch.nonzero(image.grad.abs().sum((0, 1)), as_tuple=True)
    first, last = 30 - k // 2, 30 + k // 2
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (first, last, first, last)


@pytest.mark.parametrize(("k", "d", "expected"), [(7, 2, 3), (11, 2, 5), (17, 3, 5), (65, 3, 21), (23, 3, 7)])
def test_taps_span_the_kernel(k: int, d: int, expected: int) -> None:
    near, far = taps(k, d)
    assert (near, far) == (2 * d - 1, expected)
    assert near + d * (far - 1) == k


def test_an_illegal_kernel_names_the_nearest_legal_ones() -> None:
    with pytest.raises(ConfigError, match=r"k=21 .* dilation 3; .* 17 and 23"):
        LSKA(8, 21)
    with pytest.raises(ConfigError, match="k=9 .* 7 and 11"):
        LSKA(8, 9)
    with pytest.raises(ConfigError, match="k=8 must be odd"):
        make_gate("LKATrivial", 8, 8)
    assert LSKA(8, 5, dilation=3).conv_spatial_h.weight.shape == (8, 1, 1, 1)


@pytest.mark.parametrize("design", DESIGNS)
def test_cost_grows_as_the_paper_says(design: str) -> None:
    def depthwise(k: int) -> int:
        return sum(
            p.numel() for key, p in make_gate(design, 1, k).named_parameters() if key != "conv1.weight"
        )

    growth = depthwise(53) / depthwise(23)
    assert growth < 2.31 if "LSKA" in design else growth > 2.3  # 53/23 = 2.30, its square 5.3


@pytest.mark.parametrize("design", DESIGNS)
def test_identity_initialisation_changes_nothing_and_can_learn(design: str) -> None:
    x = torch.randn(2, 8, 12, 12)
    gate = make_gate(design, 8, 7)
    assert torch.equal(gate(x), x)
    assert not torch.allclose(make_gate(design, 8, 7, init="paper")(x), x)

    residual = LSKAttention(8, 7, design=design)
    assert torch.equal(residual(x), x)
    optimizer = torch.optim.SGD([*gate.parameters(), *residual.parameters()], lr=0.01)
    for _ in range(2):  # the first step moves the closing projection, the second everything behind it
        optimizer.zero_grad()
        (gate(x).square().mean() + residual(x).square().mean()).backward()
        optimizer.step()
    still = [
        k for k, p in [*gate.named_parameters(), *residual.named_parameters()] if not p.grad.abs().sum() > 0
    ]
    assert still == []


def test_blocks_with_a_gate_start_as_the_blocks_they_replace() -> None:
    x = torch.randn(2, 16, 9, 9)
    for plain, gated in ((C3(16, 32, 2), C3LSKA(16, 32, 2)), (SPPF(16, 32), SPPFLSKA(16, 32))):
        missing, unexpected = gated.load_state_dict(plain.state_dict(), strict=False)
        assert unexpected == []
        assert all(key.startswith("attention.") for key in missing)
        assert torch.equal(gated.eval()(x), plain.eval()(x))


def test_unknown_arguments_are_rejected() -> None:
    with pytest.raises(ConfigError, match="'zero'; expected identity or paper"):
        LSKA(8, 7, init="zero")
    with pytest.raises(ConfigError, match="'LSK' is not one of LSKA, LKA"):
        make_gate("LSK", 8, 7)
