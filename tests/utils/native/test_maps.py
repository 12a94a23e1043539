"""Concatenated maps, SiLU and decoded boxes against PyTorch's operators."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.head import Detect
from utils.native import maps
from utils.native.maps import can_decode, decode, join, silu_, unit_images


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (2, 3, 1, 5), (3, 3, 33, 47), (1, 3, 1, 1), (0, 3, 8, 8)])
def test_images_as_floats_are_levels_over_255(shape: tuple[int, int, int, int]) -> None:
    images = torch.randint(0, 256, shape, dtype=torch.uint8)
    assert maps._are_plain_rgb(images) == bool(images.numel())
    floats = unit_images(images)

    assert torch.equal(floats, images.float().div_(255))
    assert floats.dtype == torch.float32 and floats.is_contiguous(memory_format=torch.channels_last)


def test_every_level_is_divided_exactly() -> None:
    levels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)

    assert torch.equal(unit_images(levels), levels.float() / 255)


@pytest.mark.parametrize("case", ["channels last", "one channel", "a part", "floats"])
def test_other_images_are_converted_by_pytorch(case: str) -> None:
    images = torch.randint(0, 256, (2, 3, 8, 10), dtype=torch.uint8)
    if case == "channels last":
        images = images.to(memory_format=torch.channels_last)
    elif case == "one channel":
        images = images[:, :1]
    elif case == "a part":
        images = images[..., 2:7]
    else:
        images = images.float()

    assert not maps._are_plain_rgb(images)
    expected = images.float() / 255
    assert torch.equal(unit_images(images), expected)


@pytest.mark.parametrize("channels", [(16, 16), (3, 40, 17), (128,), (64, 255)])
@pytest.mark.parametrize("pixels", [(1, 1, 1), (2, 7, 5), (1, 40, 40)])
def test_join_is_concatenation(channels: tuple[int, ...], pixels: tuple[int, int, int]) -> None:
    b, h, w = pixels
    parts = [torch.randn(b, c, h, w).to(memory_format=torch.channels_last).requires_grad_() for c in channels]
    twins = [part.detach().clone().requires_grad_() for part in parts]
    weight = torch.randn(b, sum(channels), h, w)

    joined, known = join(parts), torch.cat(twins, 1)
    (joined * weight).sum().backward()
    (known * weight).sum().backward()

    assert torch.equal(joined, known)
    assert joined.is_contiguous(memory_format=torch.channels_last)
    assert all(torch.equal(part.grad, twin.grad) for part, twin in zip(parts, twins, strict=True))


@pytest.mark.parametrize("case", ["contiguous", "double", "mixed"])
def test_pytorchs_concatenation_runs_where_join_cannot(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "_Join", None)
    a, b = (torch.rand(1, 16, 4, 4).to(memory_format=torch.channels_last) for _ in range(2))
    if case == "contiguous":
        a, b = a.contiguous(), b.contiguous()
    elif case == "double":
        a, b = a.double(), b.double()
    else:
        b = b.double()

    assert torch.equal(join([a, b]), torch.cat([a, b], 1))


def test_join_rejects_maps_of_different_sizes() -> None:
    a, b = (torch.rand(1, 16, n, 4).to(memory_format=torch.channels_last) for n in (4, 5))

    with pytest.raises(RuntimeError, match="Sizes of tensors must match"):
        join([a, b])


@pytest.mark.parametrize("numbers", [0, 1, 15, 16, 33, 4000])
def test_silu(numbers: int) -> None:
    x = torch.randn(numbers) * 20

    assert torch.allclose(silu_(x.clone()), F.silu(x), rtol=1e-6, atol=1e-7)


def test_silu_is_exact_to_a_few_units_in_the_last_place() -> None:
    x = torch.linspace(-80, 80, 1 << 18).view(1, 16, 128, 128).contiguous(memory_format=torch.channels_last)
    exact = F.silu(x.double())
    unit = torch.from_numpy(np.spacing(exact.abs().float().numpy())).double()

    error = (silu_(x.clone()).double() - exact).abs() / unit

    assert error.max() <= 6 and error.mean() <= 0.5


def test_silu_of_extreme_values() -> None:
    x = torch.tensor([-1e4, -100.0, -87.5, -0.0, 0.0, 87.5, 100.0, 1e30, float("inf")])

    assert torch.allclose(silu_(x.clone()), F.silu(x), atol=1e-30)
    assert silu_(torch.tensor([float("nan")])).isnan().all()


@pytest.mark.parametrize("nc", [1, 3, 11, 80])
def test_decode_equals_the_heads_own_decoding(nc: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    head = Detect(nc, [[10, 13, 16, 30], [30, 61, 62, 45]], (16, 32)).eval()
    head.set_strides([8, 16])
    sources = [
        torch.randn(2, 16, 10, 12).mul(5).to(memory_format=torch.channels_last),
        torch.randn(2, 32, 5, 6).mul(5).to(memory_format=torch.channels_last),
    ]
    with torch.no_grad():
        ours, maps_ours = head(sources)
        monkeypatch.setattr("models.head.can_decode", lambda logits: False)
        theirs, maps_theirs = head(sources)

    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(maps_ours, maps_theirs, strict=True))


def test_decode_does_not_run_with_gradients_or_other_layouts() -> None:
    last = torch.rand(1, 16, 4, 4).to(memory_format=torch.channels_last)

    assert not can_decode([last])  # gradients
    with torch.no_grad():
        assert can_decode([last])
        assert not can_decode([last.contiguous()])
        assert not can_decode([last.double()])
        assert decode([last], [8.0], torch.ones(1, 2, 2)).shape == (1, 32, 8)
