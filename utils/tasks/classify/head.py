"""The classification head of YOLOv5: a convolution, the mean of each channel, and a linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from models.blocks.conv import Conv

HIDDEN = 1280  # channels of the convolution, as in EfficientNet-B0


class Classify(nn.Module):
    """Classifier of a map: convolution to 1280 channels, global average pool, dropout, linear layer.

    Its batch norm has PyTorch's default constants (eps 1e-5, momentum 0.1), with which official weights
    were trained; those of the other layers are 1e-3 and 0.03.

    Args:
        c1: input channels; the sum of those of several maps.
        c2: number of classes.
        k: kernel size of the convolution.
        s: its stride.
        p: its padding; by default as large as keeps the size.
        g: its groups.
        dropout_p: probability of dropout before the linear layer.

    Shape:
        (B, c1, h, w), or a list of maps that are concatenated -> (B, c2) logits
    """

    task = "classify"

    def __init__(
        self,
        c1: int,
        c2: int,
        k: int = 1,
        s: int = 1,
        p: int | None = None,
        g: int = 1,
        dropout_p: float = 0.0,
    ) -> None:
        super().__init__()
        self.conv = Conv(c1, HIDDEN, k, s, p, g)
        assert self.conv.bn is not None
        self.conv.bn.eps, self.conv.bn.momentum = 1e-5, 0.1
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.drop = nn.Dropout(p=dropout_p, inplace=True)
        self.linear = nn.Linear(HIDDEN, c2)

    def forward(self, x: Tensor | Sequence[Tensor]) -> Tensor:
        joined = x if isinstance(x, Tensor) else torch.cat(list(x), 1)
        logits: Tensor = self.linear(self.drop(self.pool(self.conv(joined)).flatten(1)))
        return logits
