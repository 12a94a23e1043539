"""Spatial pyramid pooling, concatenation, and space to depth."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.blocks.conv import Conv
from utils.native.maps import join


class SPP(nn.Module):
    """Spatial pyramid pooling: parallel max-pools of several sizes (He et al., arXiv:1406.4729).

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(self, c1: int, c2: int, k: tuple[int, ...] = (5, 9, 13)) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1)
        self.cv2 = Conv(hidden * (len(k) + 1), c2, 1)
        self.m = nn.ModuleList(nn.MaxPool2d(size, stride=1, padding=size // 2) for size in k)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.m)], 1))


class SPPF(nn.Module):
    """Fast spatial pyramid pooling: one max-pool three times in a row; k=5 equals SPP with k=(5, 9, 13).

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(self, c1: int, c2: int, k: int = 5) -> None:
        super().__init__()
        hidden = c1 // 2
        self.cv1 = Conv(c1, hidden, 1)
        self.cv2 = Conv(hidden * 4, c2, 1)
        self.m = nn.MaxPool2d(k, stride=1, padding=k // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(self.pyramid(x))

    def pyramid(self, x: Tensor) -> Tensor:
        """Return the four pooling levels, concatenated, (B, 2 c1, H, W)."""
        levels = [self.cv1(x)]
        for _ in range(3):
            levels.append(self.m(levels[-1]))
        return join(levels)


class Concat(nn.Module):
    """Concatenation of maps along a dimension."""

    def __init__(self, dimension: int = 1) -> None:
        super().__init__()
        self.d = dimension

    def forward(self, maps: list[Tensor]) -> Tensor:
        return join(maps) if self.d == 1 else torch.cat(maps, self.d)


class Focus(nn.Module):
    """Space to depth (2 x 2 pixels), then a convolution: the first layer of YOLOv5 before v6.

    Shape:
        (B, c1, H, W) -> (B, c2, H/2/s, W/2/s)
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        act: bool | nn.Module = True,
    ) -> None:
        super().__init__()
        self.conv = Conv(4 * c1, c2, k, s, p, g, act=act)

    def forward(self, x: Tensor) -> Tensor:
        phases = [x[..., row::2, column::2] for column in (0, 1) for row in (0, 1)]
        return self.conv(torch.cat(phases, 1))


class Contract(nn.Module):
    """Space to depth: moves blocks of gain x gain pixels into channels.

    Shape:
        (B, C, H, W) -> (B, C gain^2, H/gain, W/gain)
    """

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.gain
        x = x.reshape(b, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(b, c * s * s, h // s, w // s)


class Expand(nn.Module):
    """Depth to space: moves channels into blocks of gain x gain pixels.

    Shape:
        (B, C, H, W) -> (B, C/gain^2, H gain, W gain)
    """

    def __init__(self, gain: int = 2) -> None:
        super().__init__()
        self.gain = gain

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        s = self.gain
        x = x.reshape(b, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(b, c // s**2, h * s, w * s)
