"""Blocks that YOLOv5's modules name and our yamls do not: activations, Sum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from models.blocks.conv import same_padding


def autopad(k: Any, p: Any = None, d: int = 1) -> Any:
    """Return the padding `p`, or that which keeps height and width for kernel `k` with dilation `d`."""
    return same_padding(k if isinstance(k, int) else tuple(k), d) if p is None else p


class Sum(nn.Module):
    """Sum of n maps, with learned weights in 0-2 if `weight` (arXiv:1911.09070)."""

    def __init__(self, n: int, weight: bool = False) -> None:
        super().__init__()
        self.weight = weight
        self.iter = range(n - 1)
        if weight:
            self.w = nn.Parameter(-torch.arange(1.0, n) / 2)

    def forward(self, x: Any) -> Tensor:
        gains = (self.w.sigmoid() * 2).tolist() if self.weight else [1.0] * len(self.iter)
        y: Tensor = x[0]
        for index, gain in zip(self.iter, gains, strict=True):
            y = y + x[index + 1] * gain
        return y


class MemoryEfficientSwish(nn.SiLU):
    """SiLU; today's is as economical."""


class MemoryEfficientMish(nn.Mish):
    """Mish; today's is as economical."""


class FReLU(nn.Module):
    """Funnel activation (Ma et al., arXiv:2007.11824): max(x, T(x)) with a depth-wise convolution T."""

    def __init__(self, c1: int, k: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c1, k, padding=k // 2, groups=c1, bias=False)
        self.bn = nn.BatchNorm2d(c1)

    def forward(self, x: Tensor) -> Tensor:
        return x.maximum(self.bn(self.conv(x)))


class _Acon(nn.Module):
    """Smooth maximum of p1 x and p2 x, with a sharpness beta (Ma et al., arXiv:2009.04759)."""

    def __init__(self, c1: int) -> None:
        super().__init__()
        slopes = torch.randn(2, 1, c1, 1, 1)
        self.p1, self.p2 = (nn.Parameter(slope) for slope in slopes)

    def smooth_maximum(self, x: Tensor, beta: Tensor) -> Tensor:
        """Return (p1 - p2) x sigmoid(beta (p1 - p2) x) + p2 x."""
        difference = x * (self.p1 - self.p2)
        return difference * (beta * difference).sigmoid() + x * self.p2


class AconC(_Acon):
    """ACON-C: beta is learned, one for each channel."""

    def __init__(self, c1: int) -> None:
        super().__init__(c1)
        self.beta = nn.Parameter(torch.ones(1, c1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.smooth_maximum(x, self.beta)


class MetaAconC(_Acon):
    """Meta-ACON-C: two convolutions compute beta from the mean of each channel."""

    def __init__(self, c1: int, k: int = 1, s: int = 1, r: int = 16) -> None:
        super().__init__(c1)
        hidden = max(c1 // r, r)
        self.fc1, self.fc2 = nn.Conv2d(c1, hidden, k, s), nn.Conv2d(hidden, c1, k, s)

    def forward(self, x: Tensor) -> Tensor:
        means = x.mean((2, 3), keepdim=True)
        return self.smooth_maximum(x, self.fc2(self.fc1(means)).sigmoid())
