"""The segmentation head: boxes with mask coefficients, and the prototypes that they combine.

A mask is the sigmoid of a linear combination of prototypes (YOLACT, arXiv:1904.02689, section 3).
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from models.blocks.conv import Conv
from models.head import Detect


class Proto(nn.Module):
    """Mask prototypes of a map: (B, c1, h, w) -> (B, c2, 2h, 2w).

    Args:
        c1: input channels.
        c_: channels of the hidden layers.
        c2: number of prototypes.
    """

    def __init__(self, c1: int, c_: int = 256, c2: int = 32) -> None:
        super().__init__()
        # Attribute names are the keys of official weights.
        self.cv1, self.cv2 = (Conv(channels, c_, 3) for channels in (c1, c_))
        self.cv3 = Conv(c_, c2)
        self.upsample = nn.Upsample(scale_factor=2)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = self.upsample(self.cv1(x))
        prototypes: Tensor = self.cv3(self.cv2(enlarged))
        return prototypes


class Segment(Detect):
    """`Detect` with `nm` mask coefficients per anchor, which are not activated, and `nm` prototypes.

    Args:
        nc: number of classes.
        anchors: as `Detect`.
        nm: number of coefficients and prototypes.
        npr: channels inside `Proto`.
        ch: channels of each source map; the first is that of the prototypes.

    Shape:
        training: levels x (B, ch, h, w) -> (levels x (B, A, h, w, 5 + nc + nm) logits, prototypes
            (B, nm, 2h, 2w) of the first level)
        eval: -> ((B, N, 5 + nc + nm) decoded, prototypes, logits); with `export` without the logits
    """

    task = "segment"

    def __init__(
        self,
        nc: int = 80,
        anchors: list[list[float]] | int = 3,
        nm: int = 32,
        npr: int = 256,
        ch: tuple[int, ...] = (),
    ) -> None:
        self.nm = nm  # before the convolutions are made: it is part of their width
        super().__init__(nc, anchors, ch)
        self.npr = npr
        self.proto = Proto(ch[0], npr, nm)

    @property
    def linear(self) -> int:  # type: ignore[override]
        """Number of mask coefficients."""
        return self.nm

    def forward(self, sources: list[Tensor]) -> Any:
        output = super().forward(sources)
        prototypes = self.proto(sources[0])  # last: OpenCV 4.5 returns outputs in the order of the layers
        return (output, prototypes) if self.training else (output[0], prototypes, *output[1:])

    def maps_of(self, output: Any) -> list[Tensor]:
        maps: list[Tensor] = output[0]
        return maps
