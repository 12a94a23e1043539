"""VAN, the Visual Attention Network (Guo et al., arXiv:2202.09741), with any large kernel gate.

A detector uses its stages (`VANStage` in a model yaml) as the backbone. The classifier serves to compare
parameter counts and outputs with the paper and the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.attention.lska_blocks import LSKAttention
from utils.base.errors import ConfigError

LAYER_SCALE = 0.01  # initial value of the scales on both branches of a block
DROP_PATH = 0.1  # rate of the last block in the paper
# Modules of a stage. `VAN` appends the stage's number, from 1, as the published weights do.
PARTS = ("patch_embed", "block", "norm")


@dataclass(frozen=True)
class VANSize:
    """A size of the paper: channels, MLP ratio and blocks of the four stages."""

    channels: tuple[int, int, int, int]
    ratios: tuple[int, int, int, int]
    blocks: tuple[int, int, int, int]


SIZES = {
    "tiny": VANSize((32, 64, 160, 256), (8, 8, 4, 4), (3, 3, 5, 2)),
    "small": VANSize((64, 128, 320, 512), (8, 8, 4, 4), (2, 2, 4, 2)),
    "base": VANSize((64, 128, 320, 512), (8, 8, 4, 4), (3, 3, 12, 3)),
}


class DropPath(nn.Module):
    """Stochastic depth: drops branches of random images in training (Huang et al., arXiv:1603.09382).

    The branches of the other images are scaled up, so that the mean is kept. Equal to torchvision's
    StochasticDepth with mode "row", whose import would take every program that builds a model a second.

    Args:
        rate: probability that the branch of an image is dropped, 0 to 1.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate <= 1:
            raise ConfigError(f"drop_path: {rate} is not a probability from 0 to 1")
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        return x * functional.dropout(x.new_ones(len(x), 1, 1, 1), self.rate)

    def extra_repr(self) -> str:
        """Return the rate, for printing."""
        return f"{self.rate:g}"


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of each pixel.

    Shape:
        (B, C, H, W) -> (B, C, H, W)
    """

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class PatchEmbedding(nn.Module):
    """Overlapping patch embedding: a convolution with a kernel wider than its stride, and a batch norm.

    Shape:
        (B, c1, H, W) -> (B, c2, H/stride, W/stride)
    """

    def __init__(self, c1: int, c2: int, patch: int, stride: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(c1, c2, patch, stride, patch // 2)
        self.norm = nn.BatchNorm2d(c2)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class DepthwiseConv(nn.Module):
    """A depth-wise 3x3 convolution; a module of its own for the keys of published weights."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)


class ConvMLP(nn.Module):
    """MLP with a depth-wise 3x3 convolution before its GELU; the hidden layer is `ratio` times wider.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(self, dim: int, ratio: float) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.dwconv = DepthwiseConv(hidden)
        self.activation = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.dwconv(self.fc1(x))))


class VANBlock(nn.Module):
    """Attention, then MLP: residual branches with a batch norm in front and a scale per channel behind.

    Shape:
        (B, dim, H, W) -> (B, dim, H, W)
    """

    def __init__(
        self, dim: int, ratio: float, k: int, dilation: int | None, design: str, drop_path: float
    ) -> None:
        super().__init__()
        # Attribute names are the keys of published weights: do not rename them.
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = LSKAttention(dim, k, dilation, init="paper", design=design)
        self.drop_path = DropPath(drop_path)
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = ConvMLP(dim, ratio)
        self.layer_scale_1 = nn.Parameter(torch.full((dim,), LAYER_SCALE))
        self.layer_scale_2 = nn.Parameter(torch.full((dim,), LAYER_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(_each(self.layer_scale_1) * self.attn(self.norm1(x)))
        return x + self.drop_path(_each(self.layer_scale_2) * self.mlp(self.norm2(x)))


class VANStage(nn.Module):
    """One of VAN's four stages: patch embedding, n blocks, norm over channels.

    Args:
        c1: input channels.
        c2: output channels.
        n: number of blocks.
        patch: kernel size of the patch embedding.
        stride: stride of the patch embedding.
        ratio: hidden channels of the MLPs, as a multiple of c2.
        k: kernel size of the gates.
        dilation: of the gates; None: as published for k.
        design: LSKA, LKA, LSKATrivial or LKATrivial.
        drop_path: probability that a branch is dropped in training, for all blocks or as [first, last]
            with equal steps between; in the paper it rises from 0 to 0.1 through the network.

    Shape:
        (B, c1, H, W) -> (B, c2, H/stride, W/stride)
    """

    def __init__(
        self,
        c1: int,
        c2: int,
        n: int = 1,
        patch: int = 3,
        stride: int = 2,
        ratio: float = 4,
        k: int = 23,
        dilation: int | None = None,
        design: str = "LSKA",
        drop_path: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__()
        first, last = drop_path if isinstance(drop_path, Sequence) else (drop_path, drop_path)
        rates = _steps(first, last, n)
        self.patch_embed = PatchEmbedding(c1, c2, patch, stride)
        self.block = nn.ModuleList(VANBlock(c2, ratio, k, dilation, design, rate) for rate in rates)
        self.norm = ChannelNorm(c2, eps=1e-6)
        self.apply(_init_convolution)

    def forward(self, x: Tensor) -> Tensor:
        return _run_stage(x, self.patch_embed, self.block, self.norm)


class VAN(nn.Module):
    """The classifier: four stages, global average pooling, a linear layer.

    Args:
        size: tiny, small or base.
        k: kernel size of the gates; what the VAN paper calls 21 is 23 here.
        design: LSKA, LKA, LSKATrivial or LKATrivial.
        dilation: of the gates; None: as published for k.
        classes: number of classes.
        drop_path: probability that a branch of the last block is dropped in training.

    Shape:
        (B, 3, H, W) -> (B, classes) logits
    """

    def __init__(
        self,
        size: str = "tiny",
        k: int = 23,
        design: str = "LSKA",
        dilation: int | None = None,
        classes: int = 1000,
        drop_path: float = DROP_PATH,
    ) -> None:
        super().__init__()
        if size not in SIZES:
            raise ConfigError(f"VAN: size {size!r} is not one of {', '.join(SIZES)}")
        table, c1 = SIZES[size], 3
        rates = rising_rates(table.blocks, drop_path)
        for i, (c2, n) in enumerate(zip(table.channels, table.blocks, strict=True)):
            patch, stride = (3, 2) if i else (7, 4)
            stage = VANStage(c1, c2, n, patch, stride, table.ratios[i], k, dilation, design, rates[i])
            for part in PARTS:
                setattr(self, f"{part}{i + 1}", getattr(stage, part))
            c1 = c2
        self.head = nn.Linear(c1, classes)
        nn.init.trunc_normal_(self.head.weight, std=0.02)
        nn.init.zeros_(self.head.bias)

    def stages(self) -> Iterator[tuple[nn.Module, nn.Module, nn.Module]]:
        """Yield patch embedding, blocks and norm of each stage."""
        for number in range(1, 5):
            embed, blocks, norm = (getattr(self, f"{part}{number}") for part in PARTS)
            yield embed, blocks, norm

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages():
            x = _run_stage(x, *stage)
        return self.head(x.mean((2, 3)))


def rising_rates(blocks: Sequence[int], highest: float) -> list[tuple[float, float]]:
    """Return drop path rates of the first and last block of each stage, rising evenly from 0 to `highest`."""
    starts = [sum(blocks[:i]) for i in range(len(blocks))]
    step = highest / max(sum(blocks) - 1, 1)
    return [(start * step, (start + n - 1) * step) for start, n in zip(starts, blocks, strict=True)]


def _run_stage(x: Tensor, embed: nn.Module, blocks: nn.Module, norm: nn.Module) -> Tensor:
    x = embed(x)
    for block in blocks.children():
        x = block(x)
    return norm(x)


def _each(scale: Tensor) -> Tensor:
    """Reshape (C,) to (C, 1, 1)."""
    return scale[:, None, None]


def _steps(first: float, last: float, n: int) -> list[float]:
    return [first + (last - first) * i / max(n - 1, 1) for i in range(n)]


def _init_convolution(module: nn.Module) -> None:
    """Initialise a convolution as VAN does: normal with variance 2 / fan_out, zero biases."""
    if isinstance(module, nn.Conv2d) and not module.weight.is_meta:  # there it would import the compiler
        fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
