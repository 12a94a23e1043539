"""Transformer layers over the pixels of a map (after Dosovitskiy et al., arXiv:2010.11929)."""

from __future__ import annotations

from torch import Tensor, nn

from models.blocks.conv import Conv


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
