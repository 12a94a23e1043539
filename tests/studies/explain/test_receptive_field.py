"""Effective receptive fields: of networks with known support and energy, and sizes of known maps."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.yolo import DetectionModel
from studies.explain.layers import end_of_backbone
from studies.explain.receptive_field import centre_gradient, energy_by_reach, field_energy, measure
from utils.base.errors import DataError


def stack_of(count: int, dilation: int = 1, channels: int = 2) -> nn.Sequential:
    """`count` 3 x 3 convolutions whose weights are all one."""
    layers = [
        nn.Conv2d(3 if i == 0 else channels, channels, 3, padding=dilation, dilation=dilation)
        for i in range(count)
    ]
    for layer in layers:
        nn.init.ones_(layer.weight)
    return nn.Sequential(*layers)


def energy_of(network: nn.Module, side: int = 21) -> np.ndarray:
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)).requires_grad_()
    return centre_gradient(network(images), images)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_field_of_stacked_convolutions_is_a_square_with_binomial_energy(count: int) -> None:
    energy = energy_of(stack_of(count))
    line = np.ones(1)
    for _ in range(count):
        line = np.convolve(line, np.ones(3))
    expected = np.zeros((21, 21))
    inner = slice(10 - count, 11 + count)  # 3 + 2 (count - 1) pixels around the centre
    expected[inner, inner] = np.outer(line, line) * 3 * 2**count  # colours, and channels of each layer
    np.testing.assert_allclose(energy, expected)

    field = measure(energy, [1.0])
    assert field.centre == (10, 10)
    assert field.extents[0].side == 3 + 2 * (count - 1)
    assert field.extents[0].area == field.extents[0].square == (3 + 2 * (count - 1)) ** 2


def test_the_field_of_a_dilated_convolution_has_nine_pixels() -> None:
    energy = energy_of(stack_of(1, dilation=4))
    rows, columns = energy.nonzero()
    assert set(rows) == set(columns) == {6, 10, 14}
    assert len(rows) == 9

    half, ninety, everything = measure(energy, [0.5, 0.9, 1.0]).extents
    assert (half.area, ninety.area, everything.area) == (5, 9, 9)
    assert (half.side, everything.side, everything.square) == (9, 9, 81)  # the centre pixel holds 1/9


def test_sizes_of_a_gaussian_follow_the_formula() -> None:
    sigma, side = 20.0, 401
    steps = np.arange(side) - side // 2
    energy = np.exp(-(steps[:, None] ** 2 + steps[None] ** 2) / (2 * sigma**2))
    field = measure(energy)
    assert field.centre == (200, 200)
    assert field.energy.sum() == pytest.approx(1)
    for extent in field.extents:
        # the brightest pixels form a disc: 1 - exp(-r^2 / 2 sigma^2) of the energy lies within r
        disc = 2 * math.pi * sigma**2 * math.log(1 / (1 - extent.share))
        assert extent.area == pytest.approx(disc, rel=0.01)
        inside = math.erf(extent.side / 2 / (sigma * math.sqrt(2))) ** 2
        smaller = math.erf((extent.side / 2 - 1) / (sigma * math.sqrt(2))) ** 2
        assert smaller < extent.share <= inside + 1e-3
        assert extent.square == extent.side**2


def test_the_square_is_centred_on_the_energy_and_counts_pixels_of_the_image() -> None:
    energy = np.zeros((10, 20))
    energy[1, 17] = 2
    energy[1, 14] = energy[3, 17] = 0.5
    field = measure(energy, [0.5, 1.0])
    assert field.centre == (1, 17)
    assert [extent.side for extent in field.extents] == [1, 7]
    assert field.extents[1].square == 5 * 6  # rows 0-4 of -2-4, columns 14-19 of 14-20
    assert energy_by_reach(field.energy, (1, 17))[[0, 2, 3]].tolist() == pytest.approx([2 / 3, 5 / 6, 1])


def test_an_untrained_gate_does_not_change_the_field() -> None:
    torch.manual_seed(0)
    model = DetectionModel("yolov5n-LSKA.yaml").eval().requires_grad_(False)
    images = torch.rand(1, 3, 64, 64)
    assert end_of_backbone(model) == 10
    found = field_energy(model, images, [9, 10])
    np.testing.assert_array_equal(found[10], found[9])
    assert found[10].shape == (64, 64)
    assert not images.requires_grad

    nn.init.normal_(model.model[10].conv1.weight)
    found = field_energy(model, images, [9, 10])
    assert abs(found[10] - found[9]).max() > 0


def test_a_layer_without_gradient_is_an_error() -> None:
    model = DetectionModel("yolov5n.yaml").eval()
    nn.init.zeros_(model.model[0].conv.weight)
    with pytest.raises(DataError, match="layer 9: SPPF"):
        field_energy(model, torch.rand(1, 3, 64, 64), [9])
