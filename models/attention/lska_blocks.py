"""Attention blocks around the large kernel gates: VAN's LSKAttention, and C3 and SPPF with a gate inside."""

from __future__ import annotations

from torch import Tensor, nn

from models.attention.lska import make_gate
from models.blocks.conv import Projection
from models.blocks.csp import C3
from models.blocks.pool import SPPF


class LSKAttention(nn.Module):
    """x + P2(gate(GELU(P1(x)))) with a large kernel gate.

    With `init: identity` the gate starts as in the paper and P2 at zero, so the block starts as
    its shortcut; a zero P2 with a zero gate behind it would never get a gradient.

    Args:
        dim: channels in, and out.
        k: side of the gate's neighbourhood.
        dilation: of the gate; None: as published for k.
        init: "identity" or "paper".
        design: LSKA, LKA, LSKATrivial or LKATrivial.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(
        self,
        dim: int,
        k: int = 11,
        dilation: int | None = None,
        init: str = "identity",
        design: str = "LSKA",
    ) -> None:
        super().__init__()
        # Attribute names are the keys of published weights: do not rename them.
        self.proj_1 = Projection(dim, dim)
        self.activation = nn.GELU()
        self.spatial_gating_unit = make_gate(design, dim, k, dilation, init="paper")
        self.proj_2 = Projection(dim, dim)
        if init == "identity":
            for value in self.proj_2.parameters():
                nn.init.zeros_(value)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))


class C3LSKA(C3):
    """C3 whose merged output passes a large kernel gate (docs/design/0002-where-lska-is-placed.md).

    The keys of C3 stay as they are, so its trained weights fit.

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        shortcut: bool = True,
        g: int = 1,
        e: float = 0.5,
        k: int = 11,
        dilation: int | None = None,
        init: str = "identity",
        design: str = "LSKA",
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        self.attention = make_gate(design, c2, k, dilation, init)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(super().forward(x))


class SPPFLSKA(SPPF):
    """SPPF whose concatenated pyramid passes a large kernel gate before the last convolution.

    The keys of SPPF stay as they are, so its trained weights fit.

    Shape:
        (B, c1, H, W) -> (B, c2, H, W)
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 5,
        kernel: int = 11,
        dilation: int | None = None,
        init: str = "identity",
        design: str = "LSKA",
    ) -> None:
        super().__init__(c1, c2, k)
        self.attention = make_gate(design, 4 * (c1 // 2), kernel, dilation, init)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(self.attention(self.pyramid(x)))
