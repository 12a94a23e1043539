"""Bottlenecks and cross-stage partial blocks (Wang et al., CSPNet, arXiv:1911.11929).

Transformer layers over the pixels of a map: after Dosovitskiy et al., arXiv:2010.11929.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.blocks.conv import Conv, CrossConv, GhostBottleneck, batch_norm, make_csp_activation
from models.blocks.pool import SPP
from utils.native.maps import join


class TransformerLayer(nn.Module):
    """Self-attention and two linear layers, each with a shortcut; without layer norms, for speed.

    Shape:
        (H W, B, c) -> (H W, B, c)
    """

    def __init__(self, c: int, heads: int) -> None:
        super().__init__()
        self.q, self.k, self.v = (_square(c) for _ in "qkv")
        self.ma = nn.MultiheadAttention(c, heads)
        self.fc1, self.fc2 = _square(c), _square(c)

    def forward(self, x: Tensor) -> Tensor:
        attended, _ = self.ma(self.q(x), self.k(x), self.v(x), need_weights=False)
        x = x + attended
        return x + self.fc2(self.fc1(x))


def _square(c: int) -> nn.Linear:
    return nn.Linear(c, c, bias=False)


class TransformerBlock(nn.Module):
    """Transformer layers over the pixels of a map, with a learned linear embedding added to them.

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(self, c1: int, c2: int, heads: int = 4, layers: int = 1) -> None:
        super().__init__()
        self.conv = Conv(c1, c2) if c1 != c2 else None
        self.linear = nn.Linear(c2, c2)
        self.tr = nn.Sequential(*(TransformerLayer(c2, heads) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:
        if self.conv is not None:
            x = self.conv(x)
        pixels = x.flatten(2).permute(2, 0, 1)  # (H W, B, C)
        pixels = self.tr(pixels + self.linear(pixels))
        return pixels.permute(1, 2, 0).reshape(x.shape)


class Bottleneck(nn.Module):
    """A 1x1 and a 3x3 convolution, with a shortcut where c1 = c2."""

    def __init__(self, c1: int, c2: int, shortcut: bool = True, g: int = 1, e: float = 0.5) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1)
        self.cv2 = Conv(hidden, c2, 3, g=g)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    """CSP block with three convolutions: two branches, one with n bottlenecks, merged by a 1x1 convolution.

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1)
        self.cv2 = Conv(c1, hidden, 1)
        self.cv3 = Conv(2 * hidden, c2, 1)
        self.m = self.inside(hidden, n, shortcut, g)

    def inside(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        """Make the blocks of the first branch; the variants of C3 override this."""
        return nn.Sequential(*(Bottleneck(c, c, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(join((self.m(self.cv1(x)), self.cv2(x))))


class C3x(C3):
    """C3 with cross convolutions in place of bottlenecks."""

    def inside(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(CrossConv(c, c, 3, 1, g, 1.0, shortcut) for _ in range(n)))


class C3TR(C3):
    """C3 with a transformer in place of bottlenecks."""

    def inside(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return TransformerBlock(c, c, heads=4, layers=n)


class C3Ghost(C3):
    """C3 with ghost bottlenecks."""

    def inside(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return nn.Sequential(*(GhostBottleneck(c, c) for _ in range(n)))


class C3SPP(C3):
    """C3 with spatial pyramid pooling in place of bottlenecks."""

    def __init__(
        self,
        c1: int,
        c2: int,
        k: tuple[int, ...] = (5, 9, 13),
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
    ) -> None:
        self.sizes = tuple(k)
        super().__init__(c1, c2, n, shortcut, g, e)

    def inside(self, c: int, n: int, shortcut: bool, g: int) -> nn.Module:
        return SPP(c, c, self.sizes)


class BottleneckCSP(nn.Module):
    """CSP block of YOLOv5 before v4: norm and activation follow the concatenation of both branches."""

    def __init__(
        self, c1: int, c2: int, n: int = 1, shortcut: bool = True, g: int = 1, e: float = 0.5
    ) -> None:
        super().__init__()
        hidden = int(c2 * e)
        self.cv1 = Conv(c1, hidden, 1)
        self.cv2 = nn.Conv2d(c1, hidden, 1, bias=False)
        self.cv3 = nn.Conv2d(hidden, hidden, 1, bias=False)
        self.cv4 = Conv(2 * hidden, c2, 1)
        self.bn = batch_norm(2 * hidden)
        self.act = make_csp_activation()
        self.m = nn.Sequential(*(Bottleneck(hidden, hidden, shortcut, g, e=1.0) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        both = torch.cat((self.cv3(self.m(self.cv1(x))), self.cv2(x)), 1)
        return self.cv4(self.act(self.bn(both)))
