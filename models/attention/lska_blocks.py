"""Blocks with a large kernel gate inside: VAN's attention (LSKAttention), C3 (C3LSKA) and SPPF (SPPFLSKA).

The gate is one of the four designs of models/attention/lska.py. C3LSKA and SPPFLSKA keep the keys of C3 and
SPPF, so that trained weights of these fit.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.attention.gates import make_gate
from models.blocks.conv import Projection
from models.blocks.csp import C3
from models.blocks.pool import SPPF


class LSKAttention(nn.Module):
    """VAN's attention block: x + P2(gate(GELU(P1(x)))), where P1 and P2 are 1x1 convolutions.

    With `init: identity` P2 is zero at first, so that the block returns its input. The gate then starts as
    in the paper: before a zero P2, a gate of zero weights would never get a gradient.

    Args:
        dim: input and output channels.
        k: kernel size of the gate.
        dilation: of the gate; None: as published for k.
        init: "identity" or "paper".
        design: a name in `models.attention.gates.GATES`, such as LSKA or SE.
        r: reduction, for designs that have one.

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
        r: int | None = None,
    ) -> None:
        super().__init__()
        # Attribute names are the keys of published weights: do not rename them.
        self.proj_1 = Projection(dim, dim)
        self.activation = nn.GELU()
        self.spatial_gating_unit = make_gate(design, dim, k, dilation, "paper", r)
        self.proj_2 = Projection(dim, dim)
        if init == "identity":
            for value in self.proj_2.parameters():
                nn.init.zeros_(value)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(self.activation(self.proj_1(x))))


class C3LSKA(C3):
    """C3 with a large kernel gate behind its merging convolution (docs/design/0002-where-lska-is-placed.md).

    Args:
        c1: input channels.
        c2: output channels.
        n: bottlenecks.
        shortcut: of the bottlenecks.
        g: groups of their 3x3 convolutions.
        e: width of the branches, as a fraction of c2.
        k: kernel size of the gate.
        dilation: of the gate; None: as published for k.
        init: "identity" or "paper".
        design: a name in `models.attention.gates.GATES`, such as LSKA or SE.
        r: reduction, for designs that have one.

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
        r: int | None = None,
    ) -> None:
        super().__init__(c1, c2, n, shortcut, g, e)
        self.attention = make_gate(design, c2, k, dilation, init, r)

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(super().forward(x))


class SPPFLSKA(SPPF):
    """SPPF with a large kernel gate between its concatenated pyramid and its last convolution.

    Args:
        c1: input channels.
        c2: output channels.
        k: size of the max-pool.
        kernel: kernel size of the gate.
        dilation: of the gate; None: as published for `kernel`.
        init: "identity" or "paper".
        design: a name in `models.attention.gates.GATES`, such as LSKA or SE.
        r: reduction, for designs that have one.

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
        r: int | None = None,
    ) -> None:
        super().__init__(c1, c2, k)
        self.attention = make_gate(design, 4 * (c1 // 2), kernel, dilation, init, r)

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(self.attention(self.pyramid(x)))
