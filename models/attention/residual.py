"""The attention block of VAN: projection, GELU, gate, projection, shortcut (arXiv:2202.09741, figure 3)."""

from __future__ import annotations

from torch import Tensor, nn

from models.attention.lska import make_gate
from models.blocks.conv import Projection


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
