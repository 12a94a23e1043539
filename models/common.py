"""All blocks that a yaml can name, each with the rule for its arguments and channels.

To add a block: write its class, add its name to a line below, name it in a yaml.
"""

from __future__ import annotations

from torch import nn

from models.attention.lska import LKA, LSKA, LKATrivial, LSKATrivial
from models.attention.lska_blocks import C3LSKA, SPPFLSKA, LSKAttention
from models.attention.van import VANStage
from models.blocks.conv import (
    Conv,
    CrossConv,
    DWConv,
    DWConvTranspose2d,
    GhostBottleneck,
    GhostConv,
    MixConv2d,
)
from models.blocks.csp import C3, C3SPP, C3TR, Bottleneck, BottleneckCSP, C3Ghost, C3x
from models.blocks.pool import SPP, SPPF, Concat, Contract, Expand, Focus
from models.blocks.transformer import TransformerBlock, TransformerLayer
from models.registry import joins, keeps, packs, passes, register, stacks, unpacks, widens

# Large kernel attention: as a layer, in C3, in SPPF, as a backbone.
register(keeps, LSKA, LKA, LSKATrivial, LKATrivial, LSKAttention)
register(stacks, C3LSKA, C3_LSKA=C3LSKA)
register(widens, SPPFLSKA, SPPF_LSKA=SPPFLSKA)
register(stacks, VANStage)

# The blocks of YOLOv5.
register(widens, Conv, DWConv, GhostConv, CrossConv, MixConv2d, Focus, DWConvTranspose2d)
register(widens, Bottleneck, GhostBottleneck, SPP, SPPF, C3SPP)
register(widens, TransformerBlock)
register(stacks, C3, C3x, C3TR, C3Ghost, BottleneckCSP)
register(joins, Concat)
register(packs, Contract)
register(unpacks, Expand)

# PyTorch's modules, written nn.X or X.
register(widens, nn.Conv2d, nn.ConvTranspose2d)
register(keeps, nn.BatchNorm2d)
register(passes, nn.Upsample, nn.MaxPool2d, nn.AvgPool2d, nn.ZeroPad2d, nn.Identity, nn.Dropout, nn.Dropout2d)
register(passes, nn.SiLU, nn.ReLU, nn.LeakyReLU, nn.Hardswish, nn.Mish, nn.GELU)

__all__ = [
    "C3",
    "C3LSKA",
    "C3SPP",
    "C3TR",
    "LKA",
    "LSKA",
    "SPP",
    "SPPF",
    "SPPFLSKA",
    "Bottleneck",
    "BottleneckCSP",
    "C3Ghost",
    "C3x",
    "Concat",
    "Contract",
    "Conv",
    "CrossConv",
    "DWConv",
    "DWConvTranspose2d",
    "Expand",
    "Focus",
    "GhostBottleneck",
    "GhostConv",
    "LKATrivial",
    "LSKATrivial",
    "LSKAttention",
    "MixConv2d",
    "TransformerBlock",
    "TransformerLayer",
    "VANStage",
]
