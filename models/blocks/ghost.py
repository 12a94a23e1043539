"""Ghost convolutions: half the maps from a convolution, half from cheap depth-wise copies.

Han et al., GhostNet, arXiv:1911.11907.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.blocks.conv import Conv, DWConv


class GhostConv(nn.Module):
    """A convolution whose second half of channels is a 5x5 depth-wise view of the first."""

    def __init__(
        self, c1: int, c2: int, k: int = 1, s: int = 1, g: int = 1, act: bool | nn.Module = True
    ) -> None:
        super().__init__()
        hidden = c2 // 2
        self.cv1 = Conv(c1, hidden, k, s, g=g, act=act)
        self.cv2 = Conv(hidden, hidden, 5, 1, g=hidden, act=act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv1(x)
        return torch.cat((y, self.cv2(y)), 1)


class GhostBottleneck(nn.Module):
    """Two ghost convolutions, a depth-wise one between them at stride 2, and a shortcut."""

    def __init__(self, c1: int, c2: int, k: int = 3, s: int = 1) -> None:
        super().__init__()
        hidden = c2 // 2
        strided = s == 2
        self.conv = nn.Sequential(
            GhostConv(c1, hidden),
            DWConv(hidden, hidden, k, s, act=False) if strided else nn.Identity(),
            GhostConv(hidden, c2, act=False),
        )
        self.shortcut: nn.Module = nn.Identity()
        if strided:
            self.shortcut = nn.Sequential(DWConv(c1, c1, k, s, act=False), Conv(c1, c2, 1, act=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + self.shortcut(x)
