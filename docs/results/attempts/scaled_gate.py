"""A gate that starts as the identity with every weight in use: x * (1 + a * A(x)), a being learned from 0 on.

For `--blocks`; docs/results.md has what it was measured to do.
"""

import torch
from torch import Tensor, nn

from models.attention.lska import LSKA
from models.registry import register, same_channels


class ScaledLSKA(LSKA):
    """LSKA with the start of its paper, scaled by one learned number."""

    def __init__(self, dim: int, k: int = 11) -> None:
        super().__init__(dim, k, init="paper")
        self.strength = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.strength * self.attention(x))


register(same_channels, ScaledLSKA)
