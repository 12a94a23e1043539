"""Large kernel attention inside YOLOv5's own blocks."""

from __future__ import annotations

from torch import Tensor

from models.attention.lska import make_gate
from models.blocks.csp import C3
from models.blocks.pool import SPPF


class C3LSKA(C3):
    """C3 whose merged output passes a large kernel gate (docs/design/0002-where-lska-stands.md).

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
